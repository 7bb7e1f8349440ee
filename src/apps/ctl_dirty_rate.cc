// SPDX-License-Identifier: Apache-2.0
// holdfastctl dirty-rate: how much a virtual machine writes.
#include <fmt/format.h>

#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "apps/ctl_arguments.h"
#include "apps/json_read.h"
#include "apps/qmp_client.h"

namespace holdfast::apps {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kUsage =
    "holdfastctl dirty-rate SOCKET [--seconds N] [--mode page-sampling|dirty-bitmap|dirty-ring] "
    "[--json]";
constexpr CtlOption kOptions[] = {{"--seconds", "1"}, {"--mode", "page-sampling"}, {"--json"}};
constexpr std::chrono::milliseconds kLook{50};

Result<std::string> Measure(CtlWords words) {
  HF_TRY(const CtlArguments arguments, ReadCtlArguments(words, kOptions, 1, kUsage));
  if (arguments.words.empty())
    return Fail(Errc::kInvalidArgument, "there is no socket", fmt::format("Write {}.", kUsage));
  HF_TRY(const double seconds, NumberOption(arguments, "--seconds", 0.1, 60, 1));
  Json request = {{"calc-time", static_cast<std::int64_t>(seconds * 1000)},
                  {"calc-time-unit", "millisecond"}};
  if (arguments.Has("--mode")) request["mode"] = arguments.Value("--mode");
  HF_TRY(QmpClient client, QmpClient::Connect(arguments.words[0]));
  HF_TRY_STATUS(client.Execute("calc-dirty-rate", request));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds) +
                        QmpClient::kReplyTimeout;
  Json answer;
  while (true) {
    HF_TRY(answer, client.Execute("query-dirty-rate", Json{{"calc-time-unit", "millisecond"}}));
    if (TextMember(answer, "status") != "measuring") break;
    if (std::chrono::steady_clock::now() > deadline)
      return Fail(Errc::kSystem, fmt::format("{} does not come to an end", client.name()));
    HF_TRY_STATUS(client.NextEvent(kLook));
  }
  const auto rate = CountMember(answer, "dirty-rate");
  if (!rate) {
    return Fail(Errc::kSystem, "the dirty rate could not be measured",
                "The monitor's log says why.");
  }
  if (arguments.Has("--json"))
    return answer.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  std::string text = fmt::format("{} MiB/s by {}\n", *rate, TextMember(answer, "mode"));
  for (const Json& vcpu : ListMember(answer, "vcpu-dirty-rate")) {
    text += fmt::format("  vCPU {}: {} MiB/s\n", CountMember(vcpu, "id").value_or(0),
                        CountMember(vcpu, "dirty-rate").value_or(0));
  }
  return text;
}

}  // namespace

CtlOutcome RunCtlDirtyRate(CtlWords words) {
  Result<std::string> text = Measure(words);
  if (!text) return CtlFailure("dirty-rate", text.error());
  return {.output = std::move(*text), .error = {}, .exit_status = EXIT_SUCCESS};
}

}  // namespace holdfast::apps
