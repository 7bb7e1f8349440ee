// SPDX-License-Identifier: Apache-2.0
// What follows when the guest does something final: set-action, watchdog-set-action; inject-nmi.
#include <algorithm>

#include "control/qmp_commands.h"
#include "machine/machine.h"

namespace holdfast::control {
namespace {

using machine::Actions;

template <typename Enum, std::size_t kCount>
Enum FromName(const std::array<std::string_view, kCount>& names, const Json& name) {
  const auto& word = name.get_ref<const std::string&>();
  return static_cast<Enum>(std::find(names.begin(), names.end(), word) - names.begin());
}

QmpResult SetAction(VmContext& vm, const Json& arguments) {
  Actions actions = vm.machine().actions();
  if (arguments.contains("reboot")) actions.no_reboot = arguments["reboot"] == "shutdown";
  if (arguments.contains("shutdown")) actions.no_shutdown = arguments["shutdown"] == "pause";
  if (arguments.contains("panic")) {
    actions.panic = FromName<machine::PanicPolicy>(machine::kPanicPolicyNames, arguments["panic"]);
  }
  if (arguments.contains("watchdog")) {
    actions.watchdog =
        FromName<machine::WatchdogAction>(machine::kWatchdogActionNames, arguments["watchdog"]);
  }
  vm.machine().SetActions(actions);
  return Json::object();
}

QmpResult WatchdogSetAction(VmContext& vm, const Json& arguments) {
  Actions actions = vm.machine().actions();
  actions.watchdog =
      FromName<machine::WatchdogAction>(machine::kWatchdogActionNames, arguments["action"]);
  vm.machine().SetActions(actions);
  return Json::object();
}

QmpResult InjectNmi(VmContext& vm, const Json&) {
  HF_QMP_TRY_STATUS(vm.machine().InjectNmi());
  return Json::object();
}

}  // namespace

void DefineActionCommands(Schema& schema) {
  const auto words = [](std::span<const std::string_view> names) {
    return std::vector<std::string>(names.begin(), names.end());
  };
  schema.Enum("RebootAction", {"reset", "shutdown"});
  schema.Enum("ShutdownAction", {"poweroff", "pause"});
  schema.Enum("PanicAction", words(machine::kPanicPolicyNames));
  schema.Enum("WatchdogAction", words(machine::kWatchdogActionNames));
  schema.Struct("SetActionArguments", {{"reboot?", "RebootAction"},
                                       {"shutdown?", "ShutdownAction"},
                                       {"panic?", "PanicAction"},
                                       {"watchdog?", "WatchdogAction"}});
  schema.AddCommand("set-action", {.arguments = "SetActionArguments", .run = SetAction});
  schema.Struct("WatchdogData", {{"action", "WatchdogAction"}});
  schema.AddCommand("watchdog-set-action", {.arguments = "WatchdogData", .run = WatchdogSetAction});
  schema.AddEvent("WATCHDOG", "WatchdogData");
  schema.Struct("RtcChange", {{"offset", "int"}, {"qom-path", "str"}});
  schema.AddEvent("RTC_CHANGE", "RtcChange");
  schema.AddCommand("inject-nmi", {.run = InjectNmi});
}

}  // namespace holdfast::control
