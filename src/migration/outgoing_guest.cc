// SPDX-License-Identifier: Apache-2.0
// What Outgoing does with the guest on the main thread: tracks what it writes, makes it stand, and
// lets it go on where the migration came to nothing.
#include <utility>

#include "base/log.h"
#include "migration/outgoing.h"

namespace holdfast::migration {

Status Outgoing::StartTracking() {
  // A trial, for what cannot leave says so now; and what the other side compares with itself.
  machine::Machine& machine = subject_.machine;
  const bool ran = machine.running();
  if (ran) machine.Pause(machine::RunState::kSaveVm);
  Status status;
  if (auto trial = machine.SaveState(); !trial) {
    status = Fail(std::move(trial).error());
  } else {
    sections_ = *std::move(trial);
    // Nothing is looked at while the guest stands, so that it does so for as long whatever it has.
    auto tracker = DirtyTracker::Start(subject_.memory, subject_.vm, {.all_dirty_at_first = true});
    if (tracker) {
      tracker_ = *std::move(tracker);
    } else {
      status = Fail(std::move(tracker).error());
    }
  }
  if (!ran) return status;
  const Status resumed = machine.Resume();
  return status ? resumed : status;
}

// After a pass, on the migration's thread: as QEMU, in pages with contents.
void Outgoing::SlowGuestDown(std::uint64_t sent, std::uint64_t written) {
  const auto percent = converge_.PassEnded(sent, written);
  if (!percent) return;
  main_.Post([this, percent = *percent] {
    if (const auto set = subject_.machine.Throttle(percent); !set) log::Error(set.error());
  });
}

Status Outgoing::StandStill() {
  machine::Machine& machine = subject_.machine;
  if (machine.running()) {
    stopped_guest_ = true;
    machine.Pause(machine::RunState::kFinishMigrate);
  }
  machine.Hold("it is being migrated");
  held_ = true;
  return {};
}

Status Outgoing::SaveSections() {
  if (subject_.flush_disks) HF_TRY_STATUS(subject_.flush_disks());
  HF_TRY(sections_, subject_.machine.SaveState());
  return {};
}

Status Outgoing::GiveUpDisks() {
  if (subject_.inactivate_disks) HF_TRY_STATUS(subject_.inactivate_disks());
  disks_given_up_ = true;
  return {};
}

Status Outgoing::TakeDisksBack() {
  HF_TRY_STATUS(subject_.activate_disks());
  disks_given_up_ = false;
  return {};
}

// vCPUs stand afterwards.
void Outgoing::EndTracking() {
  if (tracker_ == nullptr) return;
  machine::Machine& machine = subject_.machine;
  if (machine.running()) {
    machine.Pause(machine::RunState::kFinishMigrate);
    stopped_guest_ = true;
  }
  if (auto stopped = tracker_->Stop(); !stopped) log::Error(stopped.error());
  tracker_.reset();
}

void Outgoing::GoOn() {
  machine::Machine& machine = subject_.machine;
  if (std::exchange(held_, false)) machine.Release();
  EndTracking();
  if (!std::exchange(stopped_guest_, false) ||
      machine.state() != machine::RunState::kFinishMigrate) {
    return;
  }
  if (disks_given_up_) {
    machine.Pause();
    log::Error("the guest stands: its disks are still the other side's; 'cont' tries again");
    return;
  }
  if (auto resumed = machine.Resume(); !resumed) log::Error(resumed.error());
}

}  // namespace holdfast::migration
