// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstdlib>
#include <utility>

#include <nlohmann/json.hpp>

#include "apps/ctl_arguments.h"
#include "apps/qmp_client.h"
#include "apps/vm_state.h"

namespace holdfast::apps {
namespace {

constexpr std::string_view kUsage = "holdfastctl info SOCKET [--json]";
constexpr CtlOption kOptions[] = {{"--json"}};

Result<std::string> Info(CtlWords words) {
  HF_TRY(const CtlArguments arguments, ReadCtlArguments(words, kOptions, 1, kUsage));
  if (arguments.words.empty())
    return Fail(Errc::kInvalidArgument, "there is no socket", fmt::format("Write {}.", kUsage));
  HF_TRY(QmpClient client, QmpClient::Connect(arguments.words[0]));
  HF_TRY(const VmState state, QueryVm(client));
  if (!arguments.Has("--json")) return FormatVmInfo(state);
  using Json = nlohmann::ordered_json;
  return VmInfoJson(state).dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

CtlOutcome RunCtlInfo(CtlWords words) {
  Result<std::string> text = Info(words);
  if (!text) return CtlFailure("info", text.error());
  return {.output = std::move(*text), .error = {}, .exit_status = EXIT_SUCCESS};
}

}  // namespace holdfast::apps
