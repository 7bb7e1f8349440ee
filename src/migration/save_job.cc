// SPDX-License-Identifier: Apache-2.0
#include "migration/save_job.h"

#include <fmt/format.h>
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "base/log.h"

namespace holdfast::migration {
namespace {

// A guest that writes faster than the disk would keep a live snapshot going for ever.
constexpr unsigned kMostPasses = 20;

std::vector<SnapshotWriter::Block> BlocksOf(const AddressSpace& memory) {
  std::vector<SnapshotWriter::Block> blocks;
  const DirtyPages all(memory);
  for (const auto& entry : all.blocks()) blocks.push_back({entry.block->id(), entry.block->size()});
  return blocks;
}

Status CheckParent(const SnapshotChain& parent, const std::vector<SnapshotWriter::Block>& blocks) {
  const auto same = [](const BlockEntry& a, const SnapshotWriter::Block& b) {
    return a.id == b.id && a.size == b.size;
  };
  if (std::ranges::equal(parent.blocks(), blocks, same)) return {};
  return Fail(Errc::kInvalidArgument,
              fmt::format("the snapshot '{}' is of a machine with other memory, and nothing can be "
                          "the difference to it",
                          parent.newest().path()),
              "Name a snapshot of this machine, or take a full one.");
}

// How a file in `path`'s folder, or elsewhere, names `parent`.
std::string RelativeName(const std::string& parent, const std::string& path) {
  std::error_code error;
  const auto from = std::filesystem::absolute(path, error).parent_path();
  const auto to = std::filesystem::absolute(parent, error);
  if (error) return parent;
  const std::string name = to.lexically_relative(from).string();
  return name.empty() ? to.string() : name;
}

}  // namespace

Result<std::unique_ptr<SaveJob>> SaveJob::Start(const Subject& subject, SaveRequest request,
                                                SnapshotDirectory about, Done done) {
  if (subject.machine.converter() != nullptr) {
    return Fail(Errc::kUnsupported,
                "a confidential guest cannot be saved: its private memory is not the host's to "
                "read");
  }
  const std::vector<SnapshotWriter::Block> blocks = BlocksOf(subject.memory);
  std::unique_ptr<SaveJob> job(
      new SaveJob(subject, std::move(request), std::move(about), std::move(done)));
  const SaveRequest& what = job->request_;
  SnapshotWriter::Options options{.path = what.path, .zstd = what.zstd};
  if (!what.parent.empty()) {
    std::error_code error;
    if (std::filesystem::equivalent(what.parent, what.path, error)) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("the snapshot '{}' cannot be the difference to itself", what.path),
                  "Give it a name of its own.");
    }
    HF_TRY(job->parent_, SnapshotChain::Open(what.parent));
    if (job->parent_->files().size() >= kMostSnapshotFiles) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("the snapshot '{}' has {} parents already, which is the most",
                              what.parent, kMostSnapshotFiles - 1),
                  "Merge them with 'holdfastctl snapshot merge', or take a full one.");
    }
    HF_TRY_STATUS(CheckParent(*job->parent_, blocks));
    options.parent = job->parent_->newest().header().id;
    options.parent_file = RelativeName(what.parent, what.path);
  }
  HF_TRY(job->writer_, SnapshotWriter::Create(std::move(options), blocks));
  job->last_ = DirtyPages(subject.memory);
  // The machine is asked first what can be saved at all, so that no memory is written for nothing.
  if (what.live && subject.machine.running()) {
    HF_TRY_STATUS(job->StartTracking());
  } else {
    if (auto stood = job->StandStill(); !stood) {
      job->GoOn(false);
      return Fail(std::move(stood).error());
    }
  }
  try {
    job->thread_ = std::thread([raw = job.get()] {
      Status status = raw->Work();
      raw->main_.Post([raw, status = std::move(status)] { raw->Finished(status); });
    });
  } catch (const std::system_error& error) {
    job->GoOn(false);
    return Fail(Error::FromErrno("a thread for the snapshot", error.code().value()));
  }
  return job;
}

SaveJob::~SaveJob() {
  progress_.cancelled = true;
  main_.Close();
  if (!thread_.joinable()) return;
  // The machine ends: its guest must not see another instruction.
  thread_.join();
  EndTracking();
  if (held_) subject_.machine.Release();
}

// ---- On the job's thread ------------------------------------------------------------------------

Status SaveJob::Work() {
  MemoryPasses passes(subject_.memory, *writer_, parent_ ? &*parent_ : nullptr, progress_);
  if (tracker_ != nullptr) {
    HF_TRY_STATUS(WriteWhileRunning(passes));
  } else {
    HF_TRY_STATUS(passes.WriteAll(true));
  }
  return writer_->Finish(about_, sections_);
}

Status SaveJob::WriteWhileRunning(MemoryPasses& passes) {
  // The first time all of it is new, which the pass over everything brings.
  HF_TRY_STATUS(tracker_->Collect(last_));
  last_.ClearAll();
  HF_TRY_STATUS(passes.WriteAll(false));
  for (unsigned pass = 1; pass < kMostPasses; ++pass) {
    HF_TRY_STATUS(tracker_->Collect(last_));
    const auto bytes = static_cast<double>(last_.count() * kPageSize);
    const double limit = static_cast<double>(request_.downtime_limit_ms) / 1000;
    if (bytes <= passes.speed() * limit) break;
    HF_TRY_STATUS(passes.WriteAgain(last_));
    last_.ClearAll();
  }
  HF_TRY_STATUS(main_.Run([this] { return StandStill(); }));
  HF_TRY_STATUS(tracker_->Collect(last_));
  return passes.WriteLast(last_);
}

// ---- On the main thread -------------------------------------------------------------------------

Status SaveJob::StartTracking() {
  // A trial, for what cannot be saved says so now.
  machine::Machine& machine = subject_.machine;
  machine.Pause(machine::RunState::kSaveVm);
  Status status;
  if (auto trial = machine.SaveState(); !trial) {
    status = Fail(std::move(trial).error());
  } else {
    // Nothing is looked at while the guest stands, so that it does so for as long whatever it has.
    auto tracker = DirtyTracker::Start(subject_.memory, subject_.vm, {.all_dirty_at_first = true});
    if (tracker) {
      tracker_ = *std::move(tracker);
    } else {
      status = Fail(std::move(tracker).error());
    }
  }
  const Status resumed = machine.Resume();
  return status ? resumed : status;
}

Status SaveJob::StandStill() {
  machine::Machine& machine = subject_.machine;
  if (machine.running()) {
    stopped_guest_ = true;
    machine.Pause(machine::RunState::kSaveVm);
  }
  machine.Hold("it is being saved");
  held_ = true;
  about_.running = stopped_guest_;
  if (subject_.flush_disks) HF_TRY_STATUS(subject_.flush_disks());
  HF_TRY(sections_, machine.SaveState());
  return {};
}

// vCPUs stand afterwards.
void SaveJob::EndTracking() {
  if (tracker_ == nullptr) return;
  machine::Machine& machine = subject_.machine;
  if (machine.running()) {
    machine.Pause(machine::RunState::kSaveVm);
    stopped_guest_ = true;
  }
  if (auto stopped = tracker_->Stop(); !stopped) log::Error(stopped.error());
  tracker_.reset();
}

void SaveJob::GoOn(bool saved) {
  machine::Machine& machine = subject_.machine;
  if (std::exchange(held_, false)) machine.Release();
  EndTracking();
  if (!std::exchange(stopped_guest_, false) || machine.state() != machine::RunState::kSaveVm)
    return;
  if (saved && request_.stop) {
    machine.Pause();
  } else if (auto resumed = machine.Resume(); !resumed) {
    log::Error(resumed.error());
  }
}

void SaveJob::Finished(Status status) {
  thread_.join();
  GoOn(status.has_value());
  writer_.reset();  // what is unfinished goes before anybody hears of it
  const Done done = done_;
  done(std::move(status));
}

}  // namespace holdfast::migration
