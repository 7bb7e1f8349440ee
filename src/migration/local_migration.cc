// SPDX-License-Identifier: Apache-2.0
#include "migration/local_migration.h"

#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>

#include <algorithm>
#include <utility>

#include "migration/cpr_exec.h"

namespace holdfast::migration {

LocalMigration::LocalMigration(const Subject& subject, Events events)
    : subject_(subject), events_(std::move(events)), main_(subject.loop) {
  const DirtyPages pages(subject.memory);
  for (const auto& entry : pages.blocks()) info_.ram_total += entry.block->size();
}

Result<std::unique_ptr<LocalMigration>> LocalMigration::ToFile(const Subject& subject,
                                                               SaveRequest request,
                                                               SnapshotDirectory about,
                                                               Events events) {
  std::unique_ptr<LocalMigration> job(new LocalMigration(subject, std::move(events)));
  request.stop = true;
  HF_TRY(job->save_, SaveJob::Start(subject, std::move(request), std::move(about),
                                    [raw = job.get()](const Status& saved) {
                                      raw->Ended(saved ? raw->Leave() : saved);
                                    }));
  job->info_.status = MigrationStatus::kActive;
  return job;
}

Result<std::unique_ptr<LocalMigration>> LocalMigration::ToMonitor(const Subject& subject,
                                                                  const std::string& path,
                                                                  Events events) {
  std::unique_ptr<LocalMigration> job(new LocalMigration(subject, std::move(events)));
  HF_TRY(job->transfer_,
         CprTransfer::Start(subject, path,
                            [raw = job.get()](const Result<CprTransfer::Outcome>& outcome) {
                              if (!outcome) return raw->Ended(Fail(outcome.error()));
                              constexpr std::uint64_t kNsPerMs = 1'000'000;
                              raw->info_.downtime_ms = outcome->downtime / kNsPerMs;
                              raw->Ended({});
                            }));
  job->info_.status = MigrationStatus::kActive;
  return job;
}

Result<std::unique_ptr<LocalMigration>> LocalMigration::ToProgram(const Subject& subject,
                                                                  std::vector<std::string> command,
                                                                  Events events) {
  std::unique_ptr<LocalMigration> job(new LocalMigration(subject, std::move(events)));
  HF_TRY(CprExec exec, CprExec::Prepare(subject, std::move(command)));
  // Not at once: whoever asked for it gets his answer first.
  job->main_.Post([raw = job.get(), exec = std::move(exec)] { raw->Ended(Fail(exec.Run())); });
  job->info_.status = MigrationStatus::kActive;
  return job;
}

void LocalMigration::SetStatus(MigrationStatus status) {
  info_.status = status;
  if (events_.status) events_.status(status);
}

Status LocalMigration::Cancel() {
  if (save_ == nullptr && transfer_ == nullptr) {
    return Fail(Errc::kInvalidArgument, "the monitor becomes another one at this moment",
                "It cannot be cancelled.");
  }
  cancelled_ = true;
  SetStatus(MigrationStatus::kCancelling);
  if (save_ != nullptr) save_->Cancel();
  if (transfer_ != nullptr) transfer_->Cancel();
  return {};
}

Status LocalMigration::Leave() {
  machine::Machine& machine = subject_.machine;
  machine.Pause(machine::RunState::kPostMigrate);
  return subject_.inactivate_disks ? subject_.inactivate_disks() : Status();
}

void LocalMigration::Ended(Status status) {
  info_ = info();
  save_.reset();
  transfer_.reset();
  SetStatus(status       ? MigrationStatus::kCompleted
            : cancelled_ ? MigrationStatus::kCancelled
                         : MigrationStatus::kFailed);
  const auto done = events_.done;
  done(status);
}

MigrationInfo LocalMigration::info() const {
  MigrationInfo info = info_;
  if (!IsActive(info.status)) return info;
  info.total_time_ms = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - started_).count());
  if (save_ == nullptr) return info;
  const Progress& progress = save_->progress();
  const std::uint64_t total = progress.total;
  info.transferred = std::min<std::uint64_t>(progress.done, total);
  info.remaining = total - info.transferred;
  return info;
}

}  // namespace holdfast::migration
