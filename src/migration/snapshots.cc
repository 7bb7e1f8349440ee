// SPDX-License-Identifier: Apache-2.0
#include "migration/snapshots.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "migration/snapshot_load.h"

namespace holdfast::migration {

std::string_view ToString(JobStatus status) noexcept {
  switch (status) {
    case JobStatus::kCreated:
      return "created";
    case JobStatus::kRunning:
      return "running";
    case JobStatus::kAborting:
      return "aborting";
    case JobStatus::kConcluded:
      return "concluded";
    case JobStatus::kNull:
      return "null";
  }
  return "?";
}

Snapshots::~Snapshots() = default;

Snapshots::Job* Snapshots::Find(std::string_view id) noexcept {
  const auto found =
      std::ranges::find_if(jobs_, [&](const auto& job) { return job->info.id == id; });
  return found == jobs_.end() ? nullptr : found->get();
}

void Snapshots::SetStatus(Job& job, JobStatus status) {
  job.info.status = status;
  if (events_.status_changed) events_.status_changed(job.info);
}

Status Snapshots::CheckIdle() const {
  if (events_.migrating && events_.migrating()) {
    return Fail(Errc::kInvalidArgument, "the machine is being migrated",
                "Wait for the migration, or cancel it.");
  }
  for (const auto& job : jobs_) {
    if (!job->active()) continue;
    return Fail(Errc::kInvalidArgument,
                fmt::format("the job '{}' is under way, and there is one at a time", job->info.id),
                "Wait for it, or cancel it.");
  }
  return {};
}

Status Snapshots::MeasureDirtyRate(const DirtyRateRequest& request) {
  HF_TRY_STATUS(CheckIdle());
  return dirty_rate_.Start(request);
}

Result<Snapshots::Job*> Snapshots::Create(std::string_view id, std::string_view type, Done done) {
  if (id.empty()) return Fail(Errc::kInvalidArgument, "Invalid job ID ''", "Name the job.");
  if (Find(id) != nullptr) {
    return Fail(Errc::kInvalidArgument, fmt::format("Job ID '{}' already in use", id),
                "Dismiss that job first, or use another name.");
  }
  HF_TRY_STATUS(CheckIdle());
  jobs_.push_back(std::make_unique<Job>(
      Job{.info = {.id = std::string(id), .type = type}, .done = std::move(done)}));
  return jobs_.back().get();
}

Status Snapshots::Started(Job& job, Status status) {
  if (status) {
    SetStatus(job, JobStatus::kCreated);
    SetStatus(job, JobStatus::kRunning);
    return {};
  }
  std::erase_if(jobs_, [&](const auto& one) { return one.get() == &job; });
  return status;
}

Status Snapshots::Save(std::string_view id, SaveRequest request, Done done) {
  HF_TRY(Job* const job, Create(id, "holdfast-snapshot-save", std::move(done)));
  auto started = SaveJob::Start(
      subject_, std::move(request), about_,
      [this, name = std::string(id)](const Status& status) { Finished(name, status); });
  if (!started) return Started(*job, Fail(std::move(started).error()));
  job->save = *std::move(started);
  return Started(*job, {});
}

Status Snapshots::Load(std::string_view id, const std::string& path, Done done) {
  HF_TRY(Job* const job, Create(id, "holdfast-snapshot-load", std::move(done)));
  auto started = LoadJob::Start(
      subject_, path,
      [this, name = std::string(id)](const Status& status) { Finished(name, status); });
  if (!started) return Started(*job, Fail(std::move(started).error()));
  job->load = *std::move(started);
  return Started(*job, {});
}

Status Snapshots::Restore(const RestoreOptions& options) {
  HF_TRY(SnapshotChain chain, SnapshotChain::Open(options.path));
  HF_TRY_STATUS(CheckMemory(chain, subject_.memory));
  HF_TRY(const auto sections, chain.newest().ReadSections());
  Progress progress;
  if (options.prefault) {
    HF_TRY_STATUS(LoadMemory(chain, subject_.memory, /*empty=*/true, progress));
  } else if (auto started = RestoreLazily(std::move(chain), options.bandwidth); !started) {
    log::Warn(
        fmt::format("{}; all memory is read before the guest runs", started.error().ToString()));
    HF_TRY(const SnapshotChain again, SnapshotChain::Open(options.path));
    HF_TRY_STATUS(LoadMemory(again, subject_.memory, /*empty=*/true, progress));
  }
  HF_TRY_STATUS(subject_.machine.LoadState(sections));
  return subject_.machine.NewGeneration();
}

Status Snapshots::RestoreLazily(SnapshotChain chain, std::uint64_t bandwidth) {
  constexpr std::string_view kId = "restore";
  HF_TRY(Job* const job, Create(kId, "holdfast-snapshot-restore", {}));
  auto started = LazyRestore::Start(
      subject_, std::move(chain), bandwidth,
      {.done = [this, kId] { Finished(kId, {}); }, .failed = events_.restore_failed});
  if (!started) return Started(*job, Fail(std::move(started).error()));
  job->restore = *std::move(started);
  return Started(*job, {});
}

void Snapshots::Resumed() {
  for (const auto& job : jobs_) {
    if (job->restore != nullptr) job->restore->Retry();
  }
}

void Snapshots::Look(const Job& job, JobInfo& info) {
  if (job.restore != nullptr) {
    const LazyPopulation::Progress now = job.restore->progress();
    info.current = now.populated;
    info.total = now.total;
    return;
  }
  const Progress* const progress = job.save != nullptr   ? &job.save->progress()
                                   : job.load != nullptr ? &job.load->progress()
                                                         : nullptr;
  if (progress == nullptr) return;
  info.current = progress->done;
  info.total = std::max<std::uint64_t>(progress->total, info.current);
}

void Snapshots::Finished(std::string_view id, const Status& status) {
  Job* const job = Find(id);
  Look(*job, job->info);
  job->save.reset();
  job->load.reset();
  job->restore.reset();
  if (!status) {
    job->info.error = status.error();
    SetStatus(*job, JobStatus::kAborting);
  }
  SetStatus(*job, JobStatus::kConcluded);
  if (job->done) job->done(status);
}

std::vector<JobInfo> Snapshots::jobs() const {
  std::vector<JobInfo> infos;
  for (const auto& job : jobs_) {
    JobInfo info = job->info;
    Look(*job, info);
    infos.push_back(std::move(info));
  }
  return infos;
}

Status Snapshots::Cancel(std::string_view id) {
  Job* const job = Find(id);
  if (job == nullptr) return Fail(Errc::kNotFound, fmt::format("Job '{}' not found", id));
  if (job->save != nullptr) {
    job->save->Cancel();
  } else if (job->load != nullptr) {
    job->load->Cancel();
  } else if (job->restore != nullptr) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Job '{}' cannot be cancelled: the guest needs the memory that is "
                            "still in the snapshot",
                            id),
                "End the guest with quit.");
  } else {
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("Job '{}' in state 'concluded' cannot accept command verb 'cancel'", id));
  }
  return {};
}

Status Snapshots::Dismiss(std::string_view id) {
  Job* const job = Find(id);
  if (job == nullptr) return Fail(Errc::kNotFound, fmt::format("Job '{}' not found", id));
  if (job->info.status != JobStatus::kConcluded) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Job '{}' in state '{}' cannot accept command verb 'dismiss'", id,
                            ToString(job->info.status)));
  }
  SetStatus(*job, JobStatus::kNull);
  std::erase_if(jobs_, [&](const auto& one) { return one.get() == job; });
  return {};
}

}  // namespace holdfast::migration
