// SPDX-License-Identifier: Apache-2.0
// The part of VirtualMachine that hands a running guest to another monitor of this host, and takes
// one over.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "apps/vm_builder.h"
#include "base/log.h"
#include "devices/net/tap_backend.h"
#include "devices/terminal.h"
#include "migration/cpr_transfer.h"

namespace holdfast::apps {

migration::Subject VirtualMachine::MigrationSubject() {
  return {.loop = loop_,
          .machine = *machine_,
          .memory = machine_->ram(),
          .vm = *vm_,
          .flush_disks = [this] { return block_graph_.FlushAll(); },
          .inactivate_disks = [this] { return block_graph_.Inactivate(); },
          .activate_disks = [this] { return block_graph_.Activate(); },
          .creator = fmt::format("{} {}", kProgram, kVersion),
          .may_hand_over = [this] { return MayHandOver(); },
          .may_exec = [this] { return MayExec(); },
          .kept_fds =
              [this] {
                std::vector<migration::KeptFd> kept;
                for (const auto& entry : network_.backends()) {
                  const auto* const tap =
                      dynamic_cast<const devices::net::TapBackend*>(entry.backend.get());
                  for (unsigned i = 0; tap != nullptr && i < tap->queue_pairs(); ++i) {
                    kept.push_back({fmt::format("netdev/{}/{}", tap->id(), i), tap->queue_fd(i)});
                  }
                }
                return kept;
              },
          .before_exec =
              [this] {
                qmp_->Flush();
                for (const auto& backend : backends_) backend->Flush();
                devices::Terminal::RestoreNow();
              }};
}

Status VirtualMachine::MayHandOver() const {
  for (const migration::JobInfo& job : snapshots_->jobs()) {
    if (job.status != migration::JobStatus::kRunning) continue;
    return Fail(Errc::kInvalidArgument,
                fmt::format("the guest stays here while the job '{}' runs", job.id),
                "Wait for its end, or cancel it.");
  }
  if (!block_graph_.images().empty()) {
    return Fail(Errc::kUnsupported,
                fmt::format("the image '{}' is served by qemu-storage-daemon, which cannot be "
                            "handed to another monitor",
                            block_graph_.images().front()->id),
                "Convert it to raw, or shut the guest down and start it again.");
  }
  return {};
}

Status VirtualMachine::MayExec() const {
  const auto refused = [](std::string_view option) {
    return Fail(Errc::kUnsupported,
                fmt::format("{} forbids to become another program as cpr-exec does", option),
                "Use mode=cpr-transfer, which a new process takes the guest over by.");
  };
  if (options_.sandbox.enabled) return refused("-sandbox on");
  if (!options_.run_with.chroot.empty()) return refused("-run-with chroot=");
  if (!options_.run_with.user.empty()) return refused("-run-with user=");
  if (::access(options_.kvm_device.c_str(), R_OK | W_OK) == 0) return {};
  return Fail(
      Error::FromErrno(fmt::format("a new monitor could not open {}", options_.kvm_device), errno)
          .WithHint("Use mode=cpr-transfer with a monitor that may."));
}

// Memory and queues have been taken while they were made.
Status VirtualMachine::TakeOver() {
  for (const std::string& name : options_.takeover->fds.names()) {
    if (name.starts_with("ram/")) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("the guest has memory '{}', and this command line has none of that "
                              "name",
                              name.substr(4)),
                  "Start it with the options that the machine had.");
    }
    log::Warn(fmt::format("'{}' of the other monitor is used by nothing here", name));
  }
  migration::CprArrival* const arrival = options_.takeover->arrival.get();
  if (arrival != nullptr) {
    HF_TRY(options_.takeover->state, arrival->ReceiveState());
  }
  HF_TRY_STATUS(machine_->LoadState(options_.takeover->state.sections));
  if (arrival != nullptr) HF_TRY_STATUS(arrival->Loaded());
  return block_graph_.Activate();
}

// The last word on whose the guest is.
Status VirtualMachine::ClaimGuest() {
  return options_.takeover->arrival == nullptr ? Status{} : options_.takeover->arrival->Claim();
}

void VirtualMachine::TellOfTakeover() const {
  if (options_.takeover->arrival != nullptr) options_.takeover->arrival->Running();
  const migration::CprState& state = options_.takeover->state;
  if (state.stopped_at == 0) return;
  const std::uint64_t now = migration::CprClock();
  log::Info(fmt::format("took the guest over from {}: it stood for {:.1f} ms, 0 pages were copied",
                        state.creator.empty() ? "another monitor" : state.creator,
                        static_cast<double>(now - std::min(now, state.stopped_at)) / 1e6));
}

}  // namespace holdfast::apps
