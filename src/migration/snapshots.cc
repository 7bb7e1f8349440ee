// SPDX-License-Identifier: Apache-2.0
#include "migration/snapshots.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

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

Result<Snapshots::Job*> Snapshots::Create(std::string_view id, std::string_view type, Done done) {
  if (id.empty()) return Fail(Errc::kInvalidArgument, "Invalid job ID ''", "Name the job.");
  if (Find(id) != nullptr) {
    return Fail(Errc::kInvalidArgument, fmt::format("Job ID '{}' already in use", id),
                "Dismiss that job first, or use another name.");
  }
  for (const auto& job : jobs_) {
    if (job->save == nullptr && job->load == nullptr) continue;
    return Fail(Errc::kInvalidArgument,
                fmt::format("the job '{}' is under way, and there is one at a time", job->info.id),
                "Wait for it, or cancel it.");
  }
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
  auto started = SaveJob::Start(subject_, std::move(request), about_,
                                [this, name = std::string(id)](Result<SaveReport> report) {
                                  if (report) last_report_ = *report;
                                  Finished(name, report ? Status{} : Fail(report.error()));
                                });
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

void Snapshots::Look(const Job& job, JobInfo& info) {
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
