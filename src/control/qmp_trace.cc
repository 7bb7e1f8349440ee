// SPDX-License-Identifier: Apache-2.0
// trace-event-get-state and trace-event-set-state.
#include <fmt/format.h>

#include <vector>

#include "base/trace.h"
#include "control/qmp_commands.h"

namespace holdfast::control {
namespace {

// The events a name or a pattern means; a name must exist, a pattern need not match.
tl::expected<std::vector<trace::Event*>, QmpError> FindEvents(const Json& arguments) {
  const auto& name = arguments["name"].get_ref<const std::string&>();
  std::vector<trace::Event*> found = trace::Find(name);
  if (found.empty() && !trace::IsPattern(name)) {
    return QmpFail(fmt::format("unknown event \"{}\"", name),
                   "trace-event-get-state with the name \"*\" lists them all.");
  }
  return found;
}

QmpResult GetState(VmContext&, const Json& arguments) {
  HF_QMP_TRY(const std::vector<trace::Event*> found, FindEvents(arguments));
  Json list = Json::array();
  for (const trace::Event* const event : found) {
    list.push_back({{"name", event->name()}, {"state", event->enabled() ? "enabled" : "disabled"}});
  }
  return list;
}

QmpResult SetState(VmContext&, const Json& arguments) {
  HF_QMP_TRY(const std::vector<trace::Event*> found, FindEvents(arguments));
  for (trace::Event* const event : found) event->set_enabled(arguments["enable"].get<bool>());
  return Json::object();
}

}  // namespace

void DefineTraceCommands(Schema& schema) {
  schema.Enum("TraceEventState", {"unavailable", "disabled", "enabled"});
  schema.Struct("TraceEventInfo", {{"name", "str"}, {"state", "TraceEventState"}});
  schema.Struct("TraceEventGetStateArguments", {{"name", "str"}});
  schema.AddCommand(
      "trace-event-get-state",
      {.arguments = "TraceEventGetStateArguments", .result = "[TraceEventInfo]", .run = GetState});
  schema.Struct("TraceEventSetStateArguments",
                {{"name", "str"}, {"enable", "bool"}, {"ignore-unavailable?", "bool"}});
  schema.AddCommand("trace-event-set-state",
                    {.arguments = "TraceEventSetStateArguments", .run = SetState});
}

}  // namespace holdfast::control
