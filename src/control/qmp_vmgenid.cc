// SPDX-License-Identifier: Apache-2.0
// query-vm-generation-id and its text for people.
#include "control/human_commands.h"
#include "control/qmp_commands.h"
#include "devices/machine_services.h"
#include "machine/machine.h"

namespace holdfast::control {
namespace {

constexpr std::string_view kNone = "VM Generation ID device not found";
constexpr std::string_view kRemedy = "Start with -device vmgenid.";

QmpResult QueryVmGenerationId(VmContext& vm, const Json&) {
  const std::string& guid = vm.machine().services().vm_generation_id;
  if (guid.empty()) return QmpFail(std::string(kNone), std::string(kRemedy));
  return Json{{"guid", guid}};
}

}  // namespace

Result<std::string> HumanCommands::InfoVmGenerationId(std::string_view) {
  const std::string& guid = context_.machine().services().vm_generation_id;
  if (guid.empty()) return Fail(Errc::kNotFound, std::string(kNone), std::string(kRemedy));
  return guid + "\n";
}

void DefineVmGenerationIdCommand(Schema& schema) {
  schema.Struct("GuidInfo", {{"guid", "str"}});
  schema.AddCommand("query-vm-generation-id", {.result = "GuidInfo", .run = QueryVmGenerationId});
}

}  // namespace holdfast::control
