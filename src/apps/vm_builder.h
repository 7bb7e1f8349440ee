// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/kvm_system.h>
#include <holdfast/ram_block.h>
#include <holdfast/vm.h>

#include "apps/options.h"
#include "control/context.h"
#include "control/human_commands.h"
#include "control/monitor.h"
#include "control/passed_fds.h"
#include "control/qmp_server.h"
#include "devices/block/block_graph.h"
#include "devices/chardev.h"
#include "devices/console_mux.h"
#include "devices/device_model.h"
#include "devices/net/network.h"
#include "machine/machine.h"
#include "migration/migration.h"
#include "migration/settings.h"
#include "migration/snapshots.h"

namespace holdfast {
class EventLoop;
}

namespace holdfast::apps {

/// Everything a running holdfast consists of, wired together: KVM, RAM, consoles, machine,
/// monitors.
///
/// Thread-safety: the main loop's thread.
class VirtualMachine {
 public:
  /// Builds all of it, consoles first, so that what they are called is known early. `loop` outlives
  /// it. `interrupted` is asked while memory is preallocated, and true ends it.
  static Result<std::unique_ptr<VirtualMachine>> Build(EventLoop& loop, Options options,
                                                       std::function<bool()> interrupted = {});
  VirtualMachine(const VirtualMachine&) = delete;
  VirtualMachine& operator=(const VirtualMachine&) = delete;
  ~VirtualMachine();

  /// Lets the guest run, unless -S holds it.
  Status Start();
  /// SIGTERM presses the power button of a guest that runs, once; any other signal, a second
  /// SIGTERM, or one when the guest stands still, ends the monitor.
  void OnSignal(int signal, int sender);
  /// What the process ends with, once the loop has ended.
  int exit_status() const noexcept { return exit_status_; }

 private:
  VirtualMachine(EventLoop& loop, Options options);

  Status BuildConsoles();
  Result<devices::Chardev*> BuildSerial(std::size_t index);
  Result<devices::Chardev*> MakeBackend(std::string_view option, std::string_view word,
                                        std::string_view label, bool terminal_signals);
  std::vector<control::ChardevInfo> Chardevs() const;
  Status BuildMachine(std::function<bool()> interrupted);
  Status BuildVm();
  Status MakeVm();
  Status BuildRam(std::function<bool()> interrupted);
  control::Monitor& AddMonitor(devices::Chardev& front);
  // vm_block.cc
  Status BuildBlock();
  Status BuildDrive(const DriveRequest& request);
  // vm_net.cc
  Status BuildNet();
  // vm_migration.cc
  void BuildMigration();
  Status Await();
  // vm_snapshot.cc
  void BuildSnapshots();
  Status Restore();
  // vm_upgrade.cc
  migration::Subject MigrationSubject();
  Status MayHandOver() const;
  Status MayExec() const;
  Status TakeOver();
  Status ClaimGuest();
  void TellOfTakeover() const;
  // vm_control.cc
  Status BuildChardevs();
  Status BuildMonitors();
  Status BuildQmp(const ChardevRequest& chardev, const MonitorRequest& monitor);
  devices::Chardev* FindChardev(std::string_view id) const;
  machine::Machine::Events MachineEvents();
  void Quit(int status);
  void QuitOnCommand();

  EventLoop& loop_;
  int exit_status_ = 0;
  bool power_button_pressed_ = false;
  bool guest_runs_ = false;

  // In the order they depend on each other: users after what they use.
  std::vector<std::unique_ptr<devices::Chardev>> backends_;
  std::vector<std::string> labels_;                 // of the backends, by the same index
  std::vector<control::ChardevInfo> qmp_chardevs_;  // sockets that are QMP's alone
  std::vector<std::unique_ptr<devices::ConsoleMux>> muxes_;
  std::optional<kvm::System> system_;
  std::optional<kvm::Vm> vm_;
  std::optional<ConversionEngineKind> conversion_;  // of a confidential guest
  Options options_;  // among it the memory backends, whose memory belongs to vm_
  devices::block::BlockGraph block_graph_{loop_};
  devices::net::Network network_{loop_, [this](std::string_view event, const control::Json& data) {
                                   if (qmp_) qmp_->Emit(event, data);
                                 }};
  devices::Backends device_backends_;
  std::unique_ptr<machine::Machine> machine_;
  std::unique_ptr<migration::Snapshots> snapshots_;
  migration::Settings migration_settings_;
  std::unique_ptr<migration::Migration> migration_;
  control::PassedFds passed_fds_;
  control::VmContext context_;
  control::HumanCommands human_commands_{context_};
  std::vector<std::unique_ptr<control::Monitor>> monitors_;
  std::unique_ptr<control::QmpServer> qmp_;
};

}  // namespace holdfast::apps
