// SPDX-License-Identifier: Apache-2.0
// calc-dirty-rate and query-dirty-rate, and the same for people.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "control/human_commands.h"
#include "control/qmp_commands.h"
#include "migration/snapshots.h"

namespace holdfast::control {
namespace {

using migration::DirtyRateInfo;
using migration::DirtyRateMode;
using migration::DirtyRateRequest;
using migration::DirtyRateStatus;

constexpr DirtyRateMode kModes[] = {DirtyRateMode::kPageSampling, DirtyRateMode::kDirtyRing,
                                    DirtyRateMode::kDirtyBitmap};

bool InMilliseconds(const Json& arguments) {
  return arguments.value("calc-time-unit", "second") == "millisecond";
}

QmpResult CalcDirtyRate(VmContext& vm, const Json& arguments) {
  DirtyRateRequest request;
  const auto time = arguments["calc-time"].get<std::int64_t>();
  const std::int64_t most = 1'000'000;  // far from overflow; the measurement has limits of its own
  const std::int64_t bounded = std::clamp<std::int64_t>(time, -most, most);
  request.time = std::chrono::milliseconds(InMilliseconds(arguments) ? bounded : bounded * 1000);
  if (const auto pages = arguments.find("sample-pages"); pages != arguments.end())
    request.sample_pages =
        static_cast<std::uint64_t>(std::max<std::int64_t>(0, pages->get<std::int64_t>()));
  const std::string mode = arguments.value("mode", "page-sampling");
  for (const DirtyRateMode one : kModes) {
    if (ToString(one) == mode) request.mode = one;
  }
  HF_QMP_TRY_STATUS(vm.snapshots().MeasureDirtyRate(request));
  return Json::object();
}

QmpResult QueryDirtyRate(VmContext& vm, const Json& arguments) {
  const DirtyRateInfo& info = vm.snapshots().dirty_rate();
  const bool milliseconds = InMilliseconds(arguments);
  const std::int64_t time = info.time.count();
  Json answer = {{"status", ToString(info.status)},
                 {"start-time", info.start.count() / 1000},
                 {"calc-time", milliseconds ? time : time / 1000},
                 {"calc-time-unit", milliseconds ? "millisecond" : "second"},
                 {"sample-pages", info.sample_pages},
                 {"mode", ToString(info.mode)}};
  if (info.rate) answer["dirty-rate"] = *info.rate;
  if (info.rate && info.mode == DirtyRateMode::kDirtyRing) {
    Json vcpus = Json::array();
    for (std::size_t i = 0; i < info.vcpus.size(); ++i)
      vcpus.push_back({{"id", i}, {"dirty-rate", info.vcpus[i]}});
    answer["vcpu-dirty-rate"] = std::move(vcpus);
  }
  return answer;
}

}  // namespace

Result<std::string> HumanCommands::CalcDirtyRate(std::string_view arguments) {
  constexpr std::string_view kUsage = "Write calc_dirty_rate [-r|-b] SECONDS.";
  DirtyRateRequest request;
  bool has_mode = false;
  std::string_view rest = arguments;
  for (const auto& [word, mode] : {std::pair{"-r ", DirtyRateMode::kDirtyRing},
                                   std::pair{"-b ", DirtyRateMode::kDirtyBitmap}}) {
    if (has_mode || !rest.starts_with(word)) continue;
    request.mode = mode;
    has_mode = true;
    rest.remove_prefix(3);
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
  }
  int seconds = 0;
  const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), seconds);
  if (rest.empty() || error != std::errc() || end != rest.data() + rest.size() || seconds < 0 ||
      seconds > 1000) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("calc_dirty_rate: '{}' is no number of seconds", rest),
                std::string(kUsage));
  }
  request.time = std::chrono::seconds(seconds);
  HF_TRY_STATUS(context_.snapshots().MeasureDirtyRate(request));
  return fmt::format(
      "Starting dirty rate measurement with period {} seconds\n"
      "[Please use 'info dirty_rate' to check results]\n",
      seconds);
}

Result<std::string> HumanCommands::InfoDirtyRate(std::string_view) {
  const DirtyRateInfo& info = context_.snapshots().dirty_rate();
  std::string text = fmt::format("Status: {}\nStart Time: {} (s)\n", ToString(info.status),
                                 info.start.count() / 1000);
  if (info.mode == DirtyRateMode::kPageSampling)
    text += fmt::format("Sample Pages: {} (per GB)\n", info.sample_pages);
  text += fmt::format("Period: {} (ms)\nMode: {}\n", info.time.count(), ToString(info.mode));
  if (info.mode != DirtyRateMode::kPageSampling)
    text += fmt::format("vCPUs stood for: {} (us)\n", info.exchange.count() / 1000);
  if (!info.rate) return text + "Dirty rate: (not ready)\n";
  text += fmt::format("Dirty rate: {} (MB/s)\n", *info.rate);
  for (std::size_t i = 0; i < info.vcpus.size(); ++i)
    text += fmt::format("vcpu[{}], Dirty rate: {} (MB/s)\n", i, info.vcpus[i]);
  return text;
}

void DefineDirtyRateCommands(Schema& schema) {
  schema.Enum("TimeUnit", {"second", "millisecond"});
  schema.Enum("DirtyRateStatus", {"unstarted", "measuring", "measured"});
  schema.Enum("DirtyRateMeasureMode", {"page-sampling", "dirty-ring", "dirty-bitmap"});
  schema.Struct("DirtyRateCalc", {{"calc-time", "int"},
                                  {"calc-time-unit?", "TimeUnit"},
                                  {"sample-pages?", "int"},
                                  {"mode?", "DirtyRateMeasureMode"}});
  schema.AddCommand("calc-dirty-rate", {.arguments = "DirtyRateCalc", .run = CalcDirtyRate});
  schema.Struct("DirtyRateVcpu", {{"id", "int"}, {"dirty-rate", "int"}});
  schema.Struct("DirtyRateInfo", {{"dirty-rate?", "int"},
                                  {"status", "DirtyRateStatus"},
                                  {"start-time", "int"},
                                  {"calc-time", "int"},
                                  {"calc-time-unit", "TimeUnit"},
                                  {"sample-pages", "uint64"},
                                  {"mode", "DirtyRateMeasureMode"},
                                  {"vcpu-dirty-rate?", "[DirtyRateVcpu]"}});
  schema.Struct("DirtyRateQuery", {{"calc-time-unit?", "TimeUnit"}});
  schema.AddCommand(
      "query-dirty-rate",
      {.arguments = "DirtyRateQuery", .result = "DirtyRateInfo", .run = QueryDirtyRate});
}

}  // namespace holdfast::control
