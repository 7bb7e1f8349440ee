// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>

#include "control/context.h"
#include "control/human_commands.h"
#include "machine/machine.h"

namespace holdfast::control {

Result<std::string> HumanCommands::WatchdogAction(std::string_view arguments) {
  const auto& names = machine::kWatchdogActionNames;
  const auto found = std::find(names.begin(), names.end(), arguments);
  if (found == names.end()) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Parameter 'action' does not accept value '{}'", arguments),
                fmt::format("It is one of {}.", fmt::join(names, ", ")));
  }
  machine::Actions actions = context_.machine().actions();
  actions.watchdog = static_cast<machine::WatchdogAction>(found - names.begin());
  context_.machine().SetActions(actions);
  return std::string();
}

Result<std::string> HumanCommands::Nmi(std::string_view) {
  HF_TRY_STATUS(context_.machine().InjectNmi());
  return std::string();
}

}  // namespace holdfast::control
