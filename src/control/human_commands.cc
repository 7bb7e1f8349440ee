// SPDX-License-Identifier: Apache-2.0
#include "control/human_commands.h"

#include <fmt/format.h>

#include <vector>

#include "base/trace.h"
#include "control/context.h"
#include "control/words.h"
#include "machine/machine.h"

namespace holdfast::control {

std::span<const HumanCommands::Command> HumanCommands::Commands() noexcept {
  using H = HumanCommands;
  static constexpr Command kCommands[] = {
      {"balloon", "", "target", "ask the guest to leave itself so many MiB", &H::SetBalloon},
      {"cont", "c", "", "resume the guest", &H::Continue},
      {"device_add", "", "driver[,prop=value][,...]", "add a device, as -device does",
       &H::DeviceAdd},
      {"device_del", "", "device", "ask the guest to let a device go, and take it away",
       &H::DeviceDel},
      {"help", "?", "[command]", "show this list, or one command", &H::Help},
      {"info", "", "[subcommand]", "show the state of something", &H::Info},
      {"announce_self", "", "[interfaces] [id]",
       "make the network cards known to the switches around", &H::AnnounceSelf},
      {"getfd", "", "name", "give the file descriptor that was passed with it a name", &H::Getfd},
      {"closefd", "", "name", "close such a file descriptor", &H::Closefd},
      {"hostfwd_add", "", "[netdev_id] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport",
       "lead a port of the host to the guest (-netdev user)", &H::HostForwardAdd},
      {"hostfwd_remove", "", "[netdev_id] [tcp|udp]:[hostaddr]:hostport", "take such a rule away",
       &H::HostForwardRemove},
      {"migrate_set_capability", "", "capability on|off", "what migrations may do",
       &H::MigrateSetCapability},
      {"migrate_set_parameter", "", "parameter value", "how migrations go",
       &H::MigrateSetParameter},
      {"migrate", "", "[-d] [-r] uri",
       "send the guest to another monitor, while it runs; -r: go on with a paused post-copy",
       &H::Migrate},
      {"migrate_cancel", "", "", "break the migration off; the guest stays", &H::MigrateCancel},
      {"migrate_continue", "", "state", "go on where pause-before-switchover has stopped",
       &H::MigrateContinue},
      {"migrate_incoming", "", "uri", "wait for the guest there (-incoming defer)",
       &H::MigrateIncoming},
      {"migrate_pause", "", "", "let go of the connections of a post-copy", &H::MigratePause},
      {"migrate_recover", "", "uri", "wait there for the source of a paused post-copy",
       &H::MigrateRecover},
      {"migrate_start_postcopy", "", "", "let the guest run there before all its memory is",
       &H::MigrateStartPostcopy},
      {"netdev_add", "", "type,id=id[,prop=value][,...]", "make a network back end", &H::NetdevAdd},
      {"netdev_del", "", "id", "end a network back end", &H::NetdevDel},
      {"set_link", "", "name on|off", "change the link of a network card", &H::SetLink},
      {"nmi", "", "", "send a non-maskable interrupt to all vCPUs", &H::Nmi},
      {"quit", "q", "", "end Holdfast at once", &H::Quit},
      {"loadvm", "", "name", "go back to a snapshot: NAME.snapshot here, or a path", &H::Loadvm},
      {"calc_dirty_rate", "", "[-r|-b] seconds",
       "measure how much the guest writes: by samples, with -r KVM's dirty rings, with -b its log",
       &H::CalcDirtyRate},
      {"savevm", "", "[name]", "take a snapshot, while the guest stands", &H::Savevm},
      {"stop", "s", "", "stop the guest's vCPUs", &H::Stop},
      {"system_powerdown", "", "", "press the guest's power button", &H::SystemPowerdown},
      {"system_reset", "", "", "reset the guest", &H::SystemReset},
      {"trace-event", "", "name on|off", "turn trace events on or off; * and ? match any",
       &H::TraceEvent},
      {"watchdog_action", "", "action", "what the watchdog does when it runs out",
       &H::WatchdogAction},
      {"x", "", "/fmt addr", "show memory at a virtual address of vCPU 0", &H::Examine, true},
      {"xp", "", "/fmt addr", "show memory at a guest physical address", &H::ExaminePhysical, true},
  };
  return kCommands;
}

std::span<const HumanCommands::Command> HumanCommands::InfoCommands() noexcept {
  using H = HumanCommands;
  static constexpr Command kCommands[] = {
      {"balloon", "", "", "show how much memory the balloon leaves the guest", &H::InfoBalloon},
      {"block", "", "[-n] [-v] [device]", "show the drives (-n: the nodes, -v: more)",
       &H::InfoBlock},
      {"blockstats", "", "", "show what was read and written", &H::InfoBlockstats},
      {"chardev", "", "", "show the character devices", &H::InfoChardev},
      {"cpus", "", "", "show the vCPUs and their threads", &H::InfoCpus},
      {"kvm", "", "", "show whether KVM is used", &H::InfoKvm},
      {"memdev", "", "", "show the memory backends", &H::InfoMemdev},
      {"memory_size_summary", "", "", "show how much memory the guest has",
       &H::InfoMemorySizeSummary},
      {"migrate_capabilities", "", "", "show what migrations may do", &H::InfoMigrateCapabilities},
      {"migrate_parameters", "", "", "show how migrations go", &H::InfoMigrateParameters},
      {"migrate", "", "", "show how a migration goes", &H::InfoMigrate},
      {"mtree", "", "[-f]", "show the memory tree (-f: as flat ranges)", &H::InfoMtree},
      {"name", "", "", "show the guest's name", &H::InfoName},
      {"network", "", "", "show the network cards and back ends", &H::InfoNetwork},
      {"pci", "", "", "show the PCI functions", &H::InfoPci},
      {"numa", "", "", "show the guest's NUMA nodes", &H::InfoNuma},
      {"qtree", "", "", "show the devices", &H::InfoQtree},
      {"ramblock", "", "", "show the RAM blocks", &H::InfoRamblock},
      {"registers", "", "[-a|vcpu]", "show the registers of vCPU 0, of one, or of all",
       &H::InfoRegisters},
      {"sev", "", "", "show the guest's memory encryption by AMD SEV", &H::InfoSev},
      {"jobs", "", "", "show what is under way, and what became of it", &H::InfoJobs},
      {"dirty_rate", "", "", "show what calc_dirty_rate has found", &H::InfoDirtyRate},
      {"snapshots", "", "", "show the snapshots in the working directory", &H::InfoSnapshots},
      {"status", "", "", "show whether the guest runs", &H::InfoStatus},
      {"trace-events", "", "[name]", "show the trace events and whether they are on",
       &H::InfoTraceEvents},
      {"usernet", "", "", "show the connections of -netdev user", &H::InfoUsernet},
      {"uuid", "", "", "show the guest's UUID", &H::InfoUuid},
      {"version", "", "", "show the version of Holdfast", &H::InfoVersion},
      {"vm-generation-id", "", "", "show the number that vmgenid tells the guest",
       &H::InfoVmGenerationId},
  };
  return kCommands;
}

std::string HumanCommands::Execute(std::string_view line) {
  line = Trim(line);
  if (line.empty()) return {};
  const std::string_view name = TakeWord(line);
  return Run(Commands(), "", name, line);
}

std::string HumanCommands::Run(std::span<const Command> commands, std::string_view prefix,
                               std::string_view name, std::string_view arguments) {
  // `x/4xw ADDR` is one word with its format; the command gets the format in front.
  const std::size_t slash = name.find('/');
  const std::string_view format = slash == name.npos ? std::string_view() : name.substr(slash);
  const std::string_view bare = name.substr(0, slash);
  for (const Command& command : commands) {
    if (bare != command.name && (command.alias.empty() || bare != command.alias)) continue;
    if (!format.empty() && !command.takes_format) break;
    if (command.arguments.empty() && !arguments.empty()) {
      return fmt::format(
          "{0}: extraneous characters at the end of line\nTry \"help {0}\" for more information\n",
          command.name);
    }
    const std::string all =
        format.empty() ? std::string(arguments) : fmt::format("{} {}", format, arguments);
    auto text = (this->*command.run)(all);
    return text ? *std::move(text) : fmt::format("Error: {}\n", text.error().ToString());
  }
  return fmt::format("unknown command: '{}{}'\n", prefix, name);
}

Result<std::string> HumanCommands::Help(std::string_view arguments) {
  std::string_view wanted = arguments;
  const std::string_view first = TakeWord(wanted);
  const bool info = first == "info";
  std::string text;
  const auto add = [&](const Command& command, std::string_view prefix) {
    const std::string both = command.alias.empty()
                                 ? std::string(command.name)
                                 : fmt::format("{}|{}", command.name, command.alias);
    text += fmt::format("{}{}{}{} -- {}\n", prefix, both, command.arguments.empty() ? "" : " ",
                        command.arguments, command.help);
  };
  for (const Command& command : Commands()) {
    if (!info && (first.empty() || first == command.name || first == command.alias)) {
      add(command, "");
    }
  }
  for (const Command& command : InfoCommands()) {
    if (info && (wanted.empty() || wanted == command.name)) add(command, "info ");
  }
  return text.empty() ? fmt::format("unknown command: '{}'\n", arguments) : text;
}

Result<std::string> HumanCommands::Info(std::string_view arguments) {
  if (arguments.empty()) return Help("info");
  const std::string_view name = TakeWord(arguments);
  return Run(InfoCommands(), "info ", name, arguments);
}

Result<std::string> HumanCommands::Stop(std::string_view) {
  context_.machine().Pause();
  return std::string();
}

Result<std::string> HumanCommands::Continue(std::string_view) {
  HF_TRY_STATUS(LetRun(context_));
  return std::string();
}

Result<std::string> HumanCommands::Quit(std::string_view) {
  context_.quit();
  return std::string();
}

Result<std::string> HumanCommands::SystemReset(std::string_view) {
  HF_TRY_STATUS(context_.machine().Reset());
  return std::string();
}

Result<std::string> HumanCommands::SystemPowerdown(std::string_view) {
  context_.machine().PowerButton();
  return std::string();
}

Result<std::string> HumanCommands::TraceEvent(std::string_view arguments) {
  const std::string_view name = TakeWord(arguments);
  const std::string_view state = TakeWord(arguments);
  if (name.empty() || !arguments.empty() || (state != "on" && state != "off")) {
    return Fail(Errc::kInvalidArgument, "trace-event expects a name, and 'on' or 'off'",
                "For example: trace-event kvm_run_exit on");
  }
  const std::vector<trace::Event*> found = trace::Find(name);
  for (trace::Event* const event : found) event->set_enabled(state == "on");
  if (found.empty() && !trace::IsPattern(name)) {
    return Fail(Errc::kInvalidArgument, fmt::format("unknown event \"{}\"", name),
                "'info trace-events' lists them.");
  }
  return std::string();
}

}  // namespace holdfast::control
