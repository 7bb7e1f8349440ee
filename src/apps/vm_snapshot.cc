// SPDX-License-Identifier: Apache-2.0
// The part of VirtualMachine that saves it and goes on from what was saved.
#include <fmt/format.h>

#include "apps/vm_builder.h"
#include "base/log.h"

namespace holdfast::apps {

void VirtualMachine::BuildSnapshots() {
  migration::SnapshotDirectory about;
  about.creator = fmt::format("{} {}", kProgram, kVersion);
  about.name = options_.guest_name;
  about.command_line = options_.command_line;
  snapshots_ = std::make_unique<migration::Snapshots>(
      MigrationSubject(), std::move(about),
      migration::Snapshots::Events{
          .status_changed =
              [this](const migration::JobInfo& job) {
                qmp_->Emit("JOB_STATUS_CHANGE", {{"id", job.id}, {"status", ToString(job.status)}});
              },
          .restore_failed =
              [this](const std::string& block, std::uint64_t offset, const Error& error) {
                log::Error(error);
                qmp_->Emit("HOLDFAST_RESTORE_ERROR",
                           {{"memory", block}, {"offset", offset}, {"error", error.ToString()}});
              },
          .migrating = [this] { return migration_ != nullptr && migration_->active(); }});
}

// Before the process is confined: files are read by a monitor that cannot open any later.
Status VirtualMachine::Restore() {
  const IncomingOptions& incoming = *options_.incoming;
  if (options_.machine.confidential != nullptr) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("-incoming file:{} cannot be given with -machine "
                            "confidential-guest-support={}: private memory is not the host's to "
                            "fill",
                            incoming.path, options_.confidential));
  }
  // A file says nothing of where the guest is now: whoever has its disks is heard first.
  HF_TRY_STATUS(block_graph_.Activate());
  HF_TRY_STATUS(snapshots_->Restore(
      {.path = incoming.path, .prefault = incoming.prefault, .bandwidth = incoming.bandwidth}));
  if (!incoming.new_mac) return {};
  for (devices::net::Nic* const nic : network_.nics()) nic->SetMac(devices::net::RandomMac());
  return {};
}

}  // namespace holdfast::apps
