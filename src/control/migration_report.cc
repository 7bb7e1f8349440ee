// SPDX-License-Identifier: Apache-2.0
#include "control/migration_report.h"

#include <fmt/format.h>
#include <holdfast/units.h>

namespace holdfast::control {
namespace {

using migration::MigrationInfo;
using migration::MigrationStatus;

// Whether memory is counted: not before it goes, nor where it comes.
bool HasMemory(const MigrationInfo& info) {
  return !info.incoming && info.status != MigrationStatus::kNone &&
         info.status != MigrationStatus::kSetup;
}

double Megabits(std::uint64_t bytes_per_second) {
  return static_cast<double>(bytes_per_second) * 8 / 1e6;
}

}  // namespace

Json MigrationJson(const MigrationInfo& info) {
  Json json = Json::object();
  if (info.status == MigrationStatus::kNone) return json;
  json["status"] = ToString(info.status);
  if (info.error) json["error-desc"] = info.error->ToString();
  if (!HasMemory(info)) return json;
  json["total-time"] = info.total_time_ms;
  if (info.setup_time_ms) json["setup-time"] = *info.setup_time_ms;
  if (info.downtime_ms) json["downtime"] = *info.downtime_ms;
  if (info.expected_downtime_ms && IsActive(info.status))
    json["expected-downtime"] = *info.expected_downtime_ms;
  if (info.throttle != 0) json["cpu-throttle-percentage"] = info.throttle;
  json["ram"] = {{"transferred", info.transferred},
                 {"remaining", info.remaining},
                 {"total", info.ram_total},
                 {"duplicate", info.zero_pages},
                 {"normal", info.normal_pages},
                 {"normal-bytes", info.normal_pages * kPageSize},
                 {"dirty-pages-rate", info.dirty_rate},
                 {"mbps", Megabits(info.bandwidth)},
                 {"dirty-sync-count", info.passes},
                 {"postcopy-requests", info.postcopy_requests},
                 {"page-size", kPageSize},
                 {"pages-per-second", info.bandwidth / kPageSize},
                 {"dirty-sync-missed-zero-copy", 0}};
  return json;
}

std::optional<Json> SocketAddressJson(const migration::Address& address) {
  if (const auto* const tcp = std::get_if<migration::TcpAddress>(&address))
    return Json{{"type", "inet"}, {"host", tcp->host}, {"port", tcp->port}};
  if (const auto* const local = std::get_if<migration::UnixAddress>(&address))
    return Json{{"type", "unix"}, {"path", local->path}};
  return std::nullopt;
}

std::string MigrationText(const MigrationInfo& info) {
  if (info.status == MigrationStatus::kNone) return {};
  std::string text = fmt::format("Status: \t\t{}\n", ToString(info.status));
  if (info.error) text += fmt::format("Error: \t\t\t{}\n", info.error->ToString());
  if (!HasMemory(info)) return text;
  text += fmt::format("Time (ms): \t\ttotal={}", info.total_time_ms);
  if (info.setup_time_ms) text += fmt::format(", setup={}", *info.setup_time_ms);
  if (info.expected_downtime_ms && IsActive(info.status))
    text += fmt::format(", exp_down={}", *info.expected_downtime_ms);
  if (info.downtime_ms) text += fmt::format(", down={}", *info.downtime_ms);
  text += fmt::format(
      "\nRAM info:\n"
      "  Throughput (Mbps): \t{:.2f}\n"
      "  Sizes: \t\tpagesize={}, total={}\n"
      "  Transfers: \t\ttransferred={}, remain={}\n"
      "    Page Types: \tnormal={}, zero={}\n"
      "  Page Rates (pps): \ttransfer={}, dirty={}\n"
      "  Others: \t\tdirty_syncs={}, postcopy_req={}\n",
      Megabits(info.bandwidth), FormatSize(kPageSize), FormatSize(info.ram_total),
      FormatSize(info.transferred), FormatSize(info.remaining), info.normal_pages, info.zero_pages,
      info.bandwidth / kPageSize, info.dirty_rate, info.passes, info.postcopy_requests);
  if (info.throttle != 0) text += fmt::format("  CPU Throttle (%): \t{}\n", info.throttle);
  return text;
}

}  // namespace holdfast::control
