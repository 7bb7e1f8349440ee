// SPDX-License-Identifier: Apache-2.0
// Commands about the protocol and the monitor itself.
#include <fmt/format.h>

#include "control/qmp_commands.h"
#include "control/qmp_session.h"

namespace holdfast::control {
namespace {

QmpResult QueryVersion(VmContext& vm, const Json&) {
  return QmpVersion(vm);
}

QmpResult QueryName(VmContext& vm, const Json&) {
  return vm.name.empty() ? Json::object() : Json{{"name", vm.name}};
}

QmpResult QueryUuid(VmContext& vm, const Json&) {
  return Json{{"UUID", vm.uuid}};
}

QmpResult QueryCommands(VmContext&, const Json&) {
  Json list = Json::array();
  for (const std::string& name : QmpSchema().CommandNames()) list.push_back({{"name", name}});
  return list;
}

QmpResult QueryQmpSchema(VmContext&, const Json&) {
  static const Json answer = QmpSchema().Introspect();
  return answer;
}

QmpResult Quit(VmContext& vm, const Json&) {
  vm.quit();
  return Json::object();
}

QmpResult QueryChardev(VmContext& vm, const Json&) {
  Json list = Json::array();
  for (const ChardevInfo& chardev : vm.chardevs()) {
    list.push_back({{"label", chardev.label},
                    {"filename", chardev.filename},
                    {"frontend-open", chardev.frontend_open}});
  }
  return list;
}

// The types that query-qmp-schema describes itself with.
void DefineSchemaInfo(Schema& schema) {
  schema.Enum("SchemaMetaType",
              {"builtin", "enum", "array", "object", "alternate", "command", "event"});
  schema.Enum("JSONType",
              {"string", "number", "int", "boolean", "null", "object", "array", "value"});
  schema.Struct("SchemaInfoBuiltin", {{"json-type", "JSONType"}});
  schema.Struct("SchemaInfoEnumMember", {{"name", "str"}, {"features?", "[str]"}});
  schema.Struct("SchemaInfoEnum", {{"members", "[SchemaInfoEnumMember]"}, {"values", "[str]"}});
  schema.Struct("SchemaInfoArray", {{"element-type", "str"}});
  schema.Struct("SchemaInfoObjectMember",
                {{"name", "str"}, {"type", "str"}, {"default?", "any"}, {"features?", "[str]"}});
  schema.Struct("SchemaInfoObjectVariant", {{"case", "str"}, {"type", "str"}});
  schema.Struct("SchemaInfoObject", {{"members", "[SchemaInfoObjectMember]"},
                                     {"tag?", "str"},
                                     {"variants?", "[SchemaInfoObjectVariant]"}});
  schema.Struct("SchemaInfoAlternateMember", {{"type", "str"}});
  schema.Struct("SchemaInfoAlternate", {{"members", "[SchemaInfoAlternateMember]"}});
  schema.Struct("SchemaInfoCommand",
                {{"arg-type", "str"}, {"ret-type", "str"}, {"allow-oob?", "bool"}});
  schema.Struct("SchemaInfoEvent", {{"arg-type", "str"}});
  schema.Union("SchemaInfo",
               {{"name", "str"}, {"meta-type", "SchemaMetaType"}, {"features?", "[str]"}},
               "meta-type",
               {{"builtin", "SchemaInfoBuiltin"},
                {"enum", "SchemaInfoEnum"},
                {"array", "SchemaInfoArray"},
                {"object", "SchemaInfoObject"},
                {"alternate", "SchemaInfoAlternate"},
                {"command", "SchemaInfoCommand"},
                {"event", "SchemaInfoEvent"}});
  schema.AddCommand("query-qmp-schema", {.result = "[SchemaInfo]", .run = QueryQmpSchema});
}

QmpResult HumanMonitorCommand(VmContext& vm, const Json& arguments) {
  // The human monitor has no current CPU that the line could depend on; only a wrong one is told.
  if (const auto index = arguments.find("cpu-index"); index != arguments.end()) {
    HF_QMP_TRY_STATUS(CheckCpuIndex(vm, *index));
  }
  const auto& line = arguments["command-line"].get_ref<const std::string&>();
  std::string text;
  for (const char c : vm.human_command(line)) {
    if (c == '\n') text += '\r';  // as on QEMU's monitor
    text += c;
  }
  return Json(std::move(text));
}

}  // namespace

void DefineControlCommands(Schema& schema) {
  schema.Enum("QMPCapability", {"oob"});
  schema.Struct("QmpCapabilitiesArguments", {{"enable?", "[QMPCapability]"}});
  schema.AddCommand("qmp_capabilities", {.arguments = "QmpCapabilitiesArguments"});

  schema.Struct("VersionTriple", {{"major", "int"}, {"minor", "int"}, {"micro", "int"}});
  schema.Struct("VersionInfo", {{"qemu", "VersionTriple"}, {"package", "str"}});
  schema.AddCommand("query-version",
                    {.result = "VersionInfo", .allow_oob = true, .run = QueryVersion});
  schema.Struct("NameInfo", {{"name?", "str"}});
  schema.AddCommand("query-name", {.result = "NameInfo", .allow_oob = true, .run = QueryName});
  schema.Struct("UuidInfo", {{"UUID", "str"}});
  schema.AddCommand("query-uuid", {.result = "UuidInfo", .allow_oob = true, .run = QueryUuid});
  schema.Struct("CommandInfo", {{"name", "str"}});
  schema.AddCommand("query-commands", {.result = "[CommandInfo]", .run = QueryCommands});
  DefineSchemaInfo(schema);
  schema.AddCommand("quit", {.run = Quit});

  schema.Struct("ChardevInfo", {{"label", "str"}, {"filename", "str"}, {"frontend-open", "bool"}});
  schema.AddCommand("query-chardev", {.result = "[ChardevInfo]", .run = QueryChardev});
  schema.Struct("HumanMonitorCommandArguments", {{"command-line", "str"}, {"cpu-index?", "int"}});
  schema.AddCommand(
      "human-monitor-command",
      {.arguments = "HumanMonitorCommandArguments", .result = "str", .run = HumanMonitorCommand});

  schema.Struct("EventsLost", {{"count", "int"}});
  schema.AddEvent("HOLDFAST_EVENTS_LOST", "EventsLost");
}

}  // namespace holdfast::control
