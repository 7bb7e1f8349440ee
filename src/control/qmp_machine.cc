// SPDX-License-Identifier: Apache-2.0
// Commands and events about the machine, its CPUs and its run state.
#include <fmt/format.h>

#include "control/qmp_commands.h"
#include "devices/block/block_graph.h"
#include "machine/machine.h"

namespace holdfast::control {

Status LetRun(VmContext& vm) {
  // One that waits for its state has no claim to its disks.
  if (vm.block != nullptr && vm.machine().state() != machine::RunState::kInMigrate)
    HF_TRY_STATUS(vm.block->Activate());
  return vm.machine().Resume();
}

namespace {

using machine::Machine;

constexpr std::string_view kCpuType = "host-x86_64-cpu";

QmpResult QueryStatus(VmContext& vm, const Json&) {
  const Machine& machine = vm.machine();
  return Json{{"running", machine.running()}, {"status", RunStateName(machine.state())}};
}

QmpResult Stop(VmContext& vm, const Json&) {
  vm.machine().Pause();
  return Json::object();
}

QmpResult Cont(VmContext& vm, const Json&) {
  HF_QMP_TRY_STATUS(LetRun(vm));
  return Json::object();
}

QmpResult SystemReset(VmContext& vm, const Json&) {
  HF_QMP_TRY_STATUS(vm.machine().Reset());
  return Json::object();
}

QmpResult SystemPowerdown(VmContext& vm, const Json&) {
  vm.machine().PowerButton();
  return Json::object();
}

Json CpuProperties(const machine::CpuInfo& cpu) {
  Json properties = {
      {"socket-id", cpu.socket_id}, {"core-id", cpu.core_id}, {"thread-id", cpu.thread_id}};
  if (cpu.node_id) properties["node-id"] = *cpu.node_id;
  return properties;
}

QmpResult QueryCpusFast(VmContext& vm, const Json&) {
  Json list = Json::array();
  for (const machine::VcpuInfo& cpu : vm.machine().vcpus()) {
    list.push_back({{"cpu-index", cpu.index},
                    {"qom-path", CpuPath(cpu.index)},
                    {"thread-id", cpu.tid},
                    {"props", CpuProperties(cpu)},
                    {"target", "x86_64"}});
  }
  return list;
}

QmpResult QueryHotpluggableCpus(VmContext& vm, const Json&) {
  const Machine& machine = vm.machine();
  Json list = Json::array();
  // The highest first, as in QEMU.
  const std::vector<machine::CpuInfo> cpus = machine.possible_cpus();
  for (auto cpu = cpus.rbegin(); cpu != cpus.rend(); ++cpu) {
    Json one = {{"type", kCpuType}, {"vcpus-count", 1}, {"props", CpuProperties(*cpu)}};
    if (cpu->index < machine.config().smp.cpus) one["qom-path"] = CpuPath(cpu->index);
    list.push_back(std::move(one));
  }
  return list;
}

QmpResult QueryMachines(VmContext& vm, const Json&) {
  return Json::array({{{"name", vm.machine_type},
                       {"is-default", true},
                       {"cpu-max", machine::kMaxCpus},
                       {"hotpluggable-cpus", false},
                       {"numa-mem-supported", false},
                       {"deprecated", false},
                       {"default-cpu-type", kCpuType},
                       {"default-ram-id", "pc.ram"},
                       {"acpi", true}}});
}

QmpResult QueryCurrentMachine(VmContext&, const Json&) {
  return Json{{"wakeup-suspend-support", false}};
}

QmpResult QueryKvm(VmContext&, const Json&) {
  return Json{{"enabled", true}, {"present", true}};
}

void DefineRunState(Schema& schema) {
  // All of QEMU's words: clients have tables of them. Those of this program are among them.
  schema.Enum("RunState",
              {"debug", "inmigrate", "internal-error", "io-error", "paused", "postmigrate",
               "prelaunch", "finish-migrate", "restore-vm", "running", "save-vm", "shutdown",
               "suspended", "watchdog", "guest-panicked", "colo"});
  schema.Struct("StatusInfo", {{"running", "bool"}, {"status", "RunState"}});
  schema.AddCommand("query-status",
                    {.result = "StatusInfo", .allow_oob = true, .run = QueryStatus});
  schema.AddCommand("stop", {.run = Stop});
  schema.AddCommand("cont", {.run = Cont});
  schema.AddCommand("system_reset", {.run = SystemReset});
  schema.AddCommand("system_powerdown", {.run = SystemPowerdown});

  schema.Enum("ShutdownCause", {"none", "host-error", "host-qmp-quit", "host-qmp-system-reset",
                                "host-signal", "host-ui", "guest-shutdown", "guest-reset",
                                "guest-panic", "subsystem-reset", "snapshot-load"});
  schema.Struct("ShutdownData", {{"guest", "bool"}, {"reason", "ShutdownCause"}});
  schema.Enum("GuestPanicAction", {"pause", "poweroff", "run"});
  schema.Struct("GuestPanicData", {{"action", "GuestPanicAction"}});
  schema.AddEvent("STOP");
  schema.AddEvent("RESUME");
  schema.AddEvent("POWERDOWN");
  schema.AddEvent("RESET", "ShutdownData");
  schema.AddEvent("SHUTDOWN", "ShutdownData");
  schema.AddEvent("GUEST_PANICKED", "GuestPanicData");
  schema.AddEvent("GUEST_CRASHLOADED", "GuestPanicData");
}

void DefineCpus(Schema& schema) {
  schema.Enum("SysEmuTarget", {"i386", "x86_64"});
  schema.Struct("CpuInstanceProperties", {{"node-id?", "int"},
                                          {"socket-id?", "int"},
                                          {"die-id?", "int"},
                                          {"core-id?", "int"},
                                          {"thread-id?", "int"}});
  schema.Struct("CpuInfoFast", {{"cpu-index", "int"},
                                {"qom-path", "str"},
                                {"thread-id", "int"},
                                {"props?", "CpuInstanceProperties"},
                                {"target", "SysEmuTarget"}});
  schema.AddCommand("query-cpus-fast", {.result = "[CpuInfoFast]", .run = QueryCpusFast});
  schema.Struct("HotpluggableCPU", {{"type", "str"},
                                    {"vcpus-count", "int"},
                                    {"props", "CpuInstanceProperties"},
                                    {"qom-path?", "str"}});
  schema.AddCommand("query-hotpluggable-cpus",
                    {.result = "[HotpluggableCPU]", .run = QueryHotpluggableCpus});
}

}  // namespace

std::string CpuPath(unsigned index) {
  return fmt::format("/machine/unattached/device[{}]", index);
}

Status CheckCpuIndex(const VmContext& vm, const Json& index) {
  const std::int64_t number = index.get<std::int64_t>();
  if (number >= 0 && number < static_cast<std::int64_t>(vm.machine().config().smp.cpus)) return {};
  return Fail(Errc::kInvalidArgument, "Parameter 'cpu-index' expects a CPU number",
              fmt::format("The machine has the CPUs 0 to {}.", vm.machine().config().smp.cpus - 1));
}

void DefineMachineCommands(Schema& schema) {
  DefineRunState(schema);
  DefineCpus(schema);
  schema.Struct("MachineInfo", {{"name", "str"},
                                {"alias?", "str"},
                                {"is-default?", "bool"},
                                {"cpu-max", "int"},
                                {"hotpluggable-cpus", "bool"},
                                {"numa-mem-supported", "bool"},
                                {"deprecated", "bool"},
                                {"default-cpu-type?", "str"},
                                {"default-ram-id?", "str"},
                                {"acpi", "bool"}});
  schema.AddCommand("query-machines", {.result = "[MachineInfo]", .run = QueryMachines});
  schema.Struct("CurrentMachineParams", {{"wakeup-suspend-support", "bool"}});
  schema.AddCommand("query-current-machine",
                    {.result = "CurrentMachineParams", .run = QueryCurrentMachine});
  schema.Struct("KvmInfo", {{"enabled", "bool"}, {"present", "bool"}});
  schema.AddCommand("query-kvm", {.result = "KvmInfo", .allow_oob = true, .run = QueryKvm});
}

}  // namespace holdfast::control
