// SPDX-License-Identifier: Apache-2.0
// holdfastctl migrate: sends a running virtual machine to another monitor and shows how it goes.
#include "apps/ctl_migrate.h"

#include <fmt/format.h>
#include <holdfast/units.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "apps/ctl_arguments.h"
#include "apps/qmp_client.h"
#include "migration/address.h"

namespace holdfast::apps {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kUsage =
    "holdfastctl migrate SOCKET URI|SOCKET [--postcopy] [--auto-converge] [--channels N] [--zstd] "
    "[--tls CREDS] "
    "[--bandwidth SIZE] [--downtime-limit MS]";
// An event may say sooner that something has changed.
constexpr std::chrono::milliseconds kLook{200};

std::uint64_t Number(const Json& json, const char* name) {
  const auto found = json.find(name);
  return found != json.end() && found->is_number_unsigned() ? found->get<std::uint64_t>() : 0;
}

std::string Word(const Json& json, const char* name, std::string otherwise = {}) {
  const auto found = json.find(name);
  return found != json.end() && found->is_string() ? found->get<std::string>() : otherwise;
}

Json Ram(const Json& info) {
  const auto found = info.find("ram");
  return found != info.end() && found->is_object() ? *found : Json::object();
}

std::string TimeText(double seconds) {
  if (seconds < 60) return fmt::format("{:.0f} s", std::ceil(seconds));
  if (seconds < 3600) return fmt::format("{:.0f} min", std::ceil(seconds / 60));
  return fmt::format("{:.1f} h", seconds / 3600);
}

// What the two sides are told before it starts.
struct Plan {
  Json capabilities = Json::array();
  Json parameters = Json::object();
  bool postcopy = false;
};

Result<Plan> ReadPlan(const CtlArguments& arguments) {
  Plan plan;
  plan.postcopy = arguments.Has("--postcopy");
  const bool many = arguments.Has("--channels") || arguments.Has("--zstd");
  plan.capabilities.push_back({{"capability", "postcopy-ram"}, {"state", plan.postcopy}});
  plan.capabilities.push_back(
      {{"capability", "auto-converge"}, {"state", arguments.Has("--auto-converge")}});
  plan.capabilities.push_back({{"capability", "multifd"}, {"state", many}});
  if (many) {
    HF_TRY(const double channels, NumberOption(arguments, "--channels", 1, 255, 2));
    plan.parameters["multifd-channels"] = static_cast<std::uint64_t>(channels);
    plan.parameters["multifd-compression"] = arguments.Has("--zstd") ? "zstd" : "none";
  }
  if (arguments.Has("--tls")) plan.parameters["tls-creds"] = arguments.Value("--tls");
  if (arguments.Has("--bandwidth")) {
    const auto size = ParseSize(arguments.Value("--bandwidth"));
    if (!size) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("--bandwidth {} is no size", arguments.Value("--bandwidth")),
                  "Write bytes a second, as 500M or 1G; 0 for no limit.");
    }
    plan.parameters["max-bandwidth"] = *size;
  }
  if (arguments.Has("--downtime-limit")) {
    HF_TRY(const double limit, NumberOption(arguments, "--downtime-limit", 0, 2'000'000, 300));
    plan.parameters["downtime-limit"] = static_cast<std::uint64_t>(limit);
  }
  return plan;
}

Status Prepare(QmpClient& client, const Plan& plan) {
  HF_TRY_STATUS(
      client.Execute("migrate-set-capabilities", Json{{"capabilities", plan.capabilities}}));
  if (plan.parameters.empty()) return {};
  HF_TRY_STATUS(client.Execute("migrate-set-parameters", plan.parameters));
  return {};
}

// Where the monitor at `socket` waits for a guest: where it does already, else a socket of its own
// beside the control protocol's.
Result<std::string> MakeItListen(const std::string& socket, const Plan& plan) {
  HF_TRY(QmpClient client, QmpClient::Connect(socket));
  HF_TRY(const Json info, client.Execute("query-migrate"));
  const auto sockets = info.find("socket-address");
  if (sockets != info.end() && sockets->is_array() && !sockets->empty()) {
    const Json& address = sockets->front();
    if (address.is_object() && Word(address, "type") == "unix")
      return fmt::format("unix:{}", Word(address, "path"));
    return Fail(Errc::kUnsupported, fmt::format("{} waits on a network address", socket),
                "Write that address instead: tcp:HOST:PORT.");
  }
  if (!client.local()) {
    return Fail(Errc::kUnsupported, fmt::format("{} is on another host", socket),
                "Start it with -incoming tcp:HOST:PORT and write that address instead.");
  }
  HF_TRY_STATUS(Prepare(client, plan));
  constexpr std::string_view kUnix = "unix:";
  std::error_code error;
  const auto path = std::filesystem::absolute(
      socket.starts_with(kUnix) ? socket.substr(kUnix.size()) : socket, error);
  std::string uri = fmt::format("unix:{}.migration", error ? socket : path.string());
  HF_TRY_STATUS(client.Execute("migrate-incoming", Json{{"uri", uri}, {"exit-on-error", false}}));
  return uri;
}

// The last line is written over as it goes on; nothing on anything but a terminal.
class ProgressLine {
 public:
  ProgressLine() = default;
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;
  ~ProgressLine() {
    if (shown_) fmt::print(stderr, "\r\x1b[K");
  }
  void Show(const std::string& text) {
    if (!terminal_) return;
    fmt::print(stderr, "\r{}\x1b[K", Printable(text));
    shown_ = true;
  }

 private:
  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  bool shown_ = false;
};

// Which two monitors it is between.
struct Way {
  std::string source;       // control socket
  std::string destination;  // the same, if it is known
  std::string uri;
};

// What to do with a guest whose memory is in two places.
std::string HowToGoOn(const Way& way) {
  return fmt::format(
      "The guest waits for memory, and none is lost. Where the way is open again, go on with "
      "'holdfastctl qmp {} migrate uri={} resume=true'; for another one let the destination wait "
      "there first, with 'holdfastctl qmp {} migrate-recover uri=NEW'. If the destination says "
      "that it has completed, this monitor can be ended.",
      way.source, way.uri, way.destination.empty() ? "DESTINATION" : way.destination);
}

// To the end of the migration. @return what query-migrate says then
Result<Json> Watch(QmpClient& source, const Plan& plan, const Way& way) {
  ProgressLine line;
  bool over_there = false;
  while (true) {
    HF_TRY(Json info, source.Execute("query-migrate"));
    const std::string status = Word(info, "status", "none");
    if (status == "completed") return info;
    if (status == "failed" || status == "cancelled" || status == "none") {
      return Fail(Errc::kSystem,
                  Printable(Word(info, "error-desc",
                                 fmt::format("the migration was {}",
                                             status == "none" ? "forgotten" : status))),
                  "The guest runs on where it was.");
    }
    if (status == "postcopy-paused") {
      const std::string why = Word(info, "error-desc", "the connection was lost");
      return Fail(Errc::kSystem, Printable(fmt::format("the migration is paused: {}", why)),
                  HowToGoOn(way));
    }
    line.Show(MigrationProgress(info));
    if (plan.postcopy && !over_there && Number(Ram(info), "dirty-sync-count") >= 1) {
      over_there = true;
      // It may just have come to its end.
      (void)source.Execute("migrate-start-postcopy");
    }
    HF_TRY_STATUS(source.NextEvent(kLook));
  }
}

Result<std::string> Run(CtlWords words) {
  constexpr CtlOption kOptions[] = {
      {"--postcopy"},     {"--auto-converge"},     {"--channels", "4"},        {"--zstd"},
      {"--tls", "CREDS"}, {"--bandwidth", "500M"}, {"--downtime-limit", "300"}};
  HF_TRY(const CtlArguments arguments, ReadCtlArguments(words, kOptions, 2, kUsage));
  if (arguments.words.size() < 2) {
    return Fail(Errc::kInvalidArgument, "it takes a guest and where it goes",
                fmt::format("Write {}.", kUsage));
  }
  HF_TRY(const Plan plan, ReadPlan(arguments));
  HF_TRY(QmpClient source, QmpClient::Connect(arguments.words[0]));
  Way way{.source = arguments.words[0], .destination = {}, .uri = arguments.words[1]};
  if (!migration::ParseAddress(way.uri)) {
    way.destination = way.uri;
    HF_TRY(way.uri, MakeItListen(way.destination, plan));
  }
  HF_TRY_STATUS(Prepare(source, plan));
  HF_TRY_STATUS(source.Execute("migrate", Json{{"uri", way.uri}}));
  HF_TRY(const Json info, Watch(source, plan, way));
  return Printable(MigrationSummary(info)) + "\n";
}

}  // namespace

std::string MigrationProgress(const Json& info) {
  const Json ram = Ram(info);
  const std::string status = Word(info, "status", "none");
  if (ram.empty()) return status;
  const std::uint64_t left = Number(ram, "remaining");
  const std::uint64_t speed = Number(ram, "pages-per-second") * kPageSize;
  const std::uint64_t written = Number(ram, "dirty-pages-rate") * kPageSize;
  std::string text =
      fmt::format("{}, pass {}: {} of {} left, {}/s", status, Number(ram, "dirty-sync-count") + 1,
                  FormatSize(left), FormatSize(Number(ram, "total")), FormatSize(speed));
  if (speed == 0) return text;
  // After the switchover nobody writes here any longer.
  if (status.starts_with("postcopy") || written == 0) {
    return text + fmt::format(", about {}",
                              TimeText(static_cast<double>(left) / static_cast<double>(speed)));
  }
  const std::uint64_t throttle = Number(info, "cpu-throttle-percentage");
  const std::string writes = fmt::format(
      "the guest{} writes {}/s",
      throttle == 0 ? "" : fmt::format(", slowed down by {} %,", throttle), FormatSize(written));
  if (written >= speed) {
    return text + fmt::format(
                      "; it does not converge{}, as {}: --bandwidth, --channels, "
                      "--downtime-limit, --auto-converge or --postcopy help",
                      throttle == 0 ? "" : " yet", writes);
  }
  const auto closing = static_cast<double>(speed - written);
  return text +
         fmt::format(", {}, about {}", writes, TimeText(static_cast<double>(left) / closing));
}

std::string MigrationSummary(const Json& info) {
  const Json ram = Ram(info);
  return fmt::format("moved in {:.1f} s, the guest stood {} ms; {} sent in {} {}",
                     static_cast<double>(Number(info, "total-time")) / 1000,
                     Number(info, "downtime"), FormatSize(Number(ram, "transferred")),
                     Number(ram, "dirty-sync-count"),
                     Number(ram, "dirty-sync-count") == 1 ? "pass" : "passes");
}

CtlOutcome RunCtlMigrate(CtlWords words) {
  Result<std::string> text = Run(words);
  if (!text) return CtlFailure("migrate", text.error());
  return {.output = std::move(*text), .error = {}, .exit_status = EXIT_SUCCESS};
}

}  // namespace holdfast::apps
