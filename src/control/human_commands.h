// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>

#include <holdfast/error.h>

namespace holdfast::control {

struct VmContext;

/// The commands of the human monitor, under QEMU's names: a line in, text out. Who typed the line
/// (a terminal, QMP's human-monitor-command) does not matter here.
///
/// Thread-safety: the main loop's thread.
class HumanCommands {
 public:
  /// `context` outlives the commands and is complete before the first line.
  explicit HumanCommands(VmContext& context) : context_(context) {}

  /// Runs one line and returns what it prints, lines ending in "\n". An error is part of the text,
  /// "Error: …", as in QEMU.
  std::string Execute(std::string_view line);

 private:
  /// A command: `name` or `alias`, what follows it, and what it does.
  struct Command {
    std::string_view name;
    std::string_view alias;
    std::string_view arguments;
    std::string_view help;
    Result<std::string> (HumanCommands::*run)(std::string_view arguments);
    /// Whether `name/format` is taken too (x, xp).
    bool takes_format = false;
  };
  static std::span<const Command> Commands() noexcept;
  static std::span<const Command> InfoCommands() noexcept;
  /// Runs the command of the table and says so if there is none; `prefix` is "info " or empty.
  std::string Run(std::span<const Command> commands, std::string_view prefix, std::string_view name,
                  std::string_view arguments);

  // human_commands.cc
  Result<std::string> Help(std::string_view arguments);
  Result<std::string> Info(std::string_view arguments);
  Result<std::string> Stop(std::string_view arguments);
  Result<std::string> Continue(std::string_view arguments);
  Result<std::string> Quit(std::string_view arguments);
  Result<std::string> SystemReset(std::string_view arguments);
  Result<std::string> SystemPowerdown(std::string_view arguments);
  Result<std::string> TraceEvent(std::string_view arguments);

  // human_actions.cc
  Result<std::string> Nmi(std::string_view arguments);
  Result<std::string> WatchdogAction(std::string_view arguments);

  // qmp_sev.cc
  Result<std::string> InfoSev(std::string_view arguments);

  // qmp_vmgenid.cc
  Result<std::string> InfoVmGenerationId(std::string_view arguments);

  // human_balloon.cc
  Result<std::string> SetBalloon(std::string_view arguments);
  Result<std::string> InfoBalloon(std::string_view arguments);

  // human_net.cc
  Result<std::string> InfoNetwork(std::string_view arguments);
  Result<std::string> InfoUsernet(std::string_view arguments);
  Result<std::string> HostForwardAdd(std::string_view arguments);
  Result<std::string> HostForwardRemove(std::string_view arguments);
  Result<std::string> SetLink(std::string_view arguments);
  Result<std::string> NetdevAdd(std::string_view arguments);
  Result<std::string> NetdevDel(std::string_view arguments);
  Result<std::string> AnnounceSelf(std::string_view arguments);

  // human_block.cc
  Result<std::string> InfoBlock(std::string_view arguments);
  Result<std::string> InfoBlockstats(std::string_view arguments);

  // qmp_device.cc, qmp_pci.cc
  Result<std::string> DeviceAdd(std::string_view arguments);
  Result<std::string> DeviceDel(std::string_view arguments);
  Result<std::string> InfoPci(std::string_view arguments);

  // qmp_dirty_rate.cc
  Result<std::string> CalcDirtyRate(std::string_view arguments);
  Result<std::string> InfoDirtyRate(std::string_view arguments);

  // human_snapshot.cc
  Result<std::string> Savevm(std::string_view arguments);
  Result<std::string> Loadvm(std::string_view arguments);
  Result<std::string> InfoJobs(std::string_view arguments);
  Result<std::string> InfoSnapshots(std::string_view arguments);

  // human_migration_settings.cc
  Result<std::string> MigrateSetParameter(std::string_view arguments);
  Result<std::string> MigrateSetCapability(std::string_view arguments);
  Result<std::string> InfoMigrateParameters(std::string_view arguments);
  Result<std::string> InfoMigrateCapabilities(std::string_view arguments);

  // human_migration.cc
  Result<std::string> Migrate(std::string_view arguments);
  Result<std::string> MigrateIncoming(std::string_view arguments);
  Result<std::string> MigrateCancel(std::string_view arguments);
  Result<std::string> MigrateContinue(std::string_view arguments);
  Result<std::string> MigrateStartPostcopy(std::string_view arguments);
  Result<std::string> MigratePause(std::string_view arguments);
  Result<std::string> MigrateRecover(std::string_view arguments);
  Result<std::string> InfoMigrate(std::string_view arguments);

  // passed_fds.cc
  Result<std::string> Getfd(std::string_view arguments);
  Result<std::string> Closefd(std::string_view arguments);

  // human_qtree.cc
  Result<std::string> InfoQtree(std::string_view arguments);

  // human_info.cc
  Result<std::string> InfoChardev(std::string_view arguments);
  Result<std::string> InfoCpus(std::string_view arguments);
  Result<std::string> InfoKvm(std::string_view arguments);
  Result<std::string> InfoMemdev(std::string_view arguments);
  Result<std::string> InfoMemorySizeSummary(std::string_view arguments);
  Result<std::string> InfoName(std::string_view arguments);
  Result<std::string> InfoNuma(std::string_view arguments);
  Result<std::string> InfoRegisters(std::string_view arguments);
  Result<std::string> InfoStatus(std::string_view arguments);
  Result<std::string> InfoTraceEvents(std::string_view arguments);
  Result<std::string> InfoUuid(std::string_view arguments);
  Result<std::string> InfoVersion(std::string_view arguments);

  // human_memory.cc
  Result<std::string> Examine(std::string_view arguments);
  Result<std::string> ExaminePhysical(std::string_view arguments);
  Result<std::string> InfoMtree(std::string_view arguments);
  Result<std::string> InfoRamblock(std::string_view arguments);

  VmContext& context_;
};

}  // namespace holdfast::control
