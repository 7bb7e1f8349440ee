// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>

#include "migration/dirty_rate.h"
#include "migration/lazy_restore.h"
#include "migration/load_job.h"
#include "migration/save_job.h"

namespace holdfast::migration {

/// How far a job is; QEMU's JobStatus as far as it exists here.
enum class JobStatus : std::uint8_t { kCreated, kRunning, kAborting, kConcluded, kNull };
std::string_view ToString(JobStatus status) noexcept;

/// A job as query-jobs shows it.
struct JobInfo {
  std::string id;
  std::string_view type;  ///< "holdfast-snapshot-save"
  JobStatus status = JobStatus::kCreated;
  std::uint64_t current = 0;                  ///< bytes
  std::uint64_t total = 0;                    ///< bytes; may still grow
  std::optional<Error> error = std::nullopt;  ///< of one that has failed
};

/// The snapshots of a virtual machine: one job at a time saves or loads one, and stays in the list
/// when it is over until it is dismissed.
///
/// Thread-safety: the main thread.
class Snapshots {
 public:
  struct Events {
    /// A job's status has changed.
    std::function<void(const JobInfo& job)> status_changed = {};
    /// Memory that is read while the guest runs could not be: the guest was made to stand.
    std::function<void(const std::string& block, std::uint64_t offset, const Error& error)>
        restore_failed = {};
    /// Whether the machine is on its way to another monitor, or from one. Empty: never.
    std::function<bool()> migrating = {};
  };
  /// `about` is what every snapshot says of the machine.
  Snapshots(Subject subject, SnapshotDirectory about, Events events)
      : subject_(std::move(subject)), about_(std::move(about)), events_(std::move(events)) {}
  Snapshots(const Snapshots&) = delete;
  Snapshots& operator=(const Snapshots&) = delete;
  ~Snapshots();

  /// Called once when a job is over, with what became of it.
  using Done = std::function<void(const Status&)>;
  /// Starts a job. @return kInvalidArgument for an id that is in use or while another job runs;
  ///         what the job says is wrong with the request, and then there is no job
  Status Save(std::string_view job, SaveRequest request, Done done = {});
  Status Load(std::string_view job, const std::string& path, Done done = {});

  /// How a machine that waits for its state gets it.
  struct RestoreOptions {
    std::string path;
    bool prefault = false;        ///< read all memory first
    std::uint64_t bandwidth = 0;  ///< bytes a second that are read in the background; 0: all it can
  };
  /// Gives a machine that has never run (MachineConfig::incoming) memory and state. Unless
  /// `prefault`, the memory follows while the guest runs, as the job "restore"; where that cannot
  /// be done all of it is read at once, and the log says why.
  /// @return what is wrong with the file, or does not fit this machine or host
  Status Restore(const RestoreOptions& options);
  /// The guest goes on: memory that could not be read is tried again.
  void Resumed();

  /// Starts to measure how much the guest writes. @return kInvalidArgument while a job is under
  ///         way, and what DirtyRate::Start() says
  Status MeasureDirtyRate(const DirtyRateRequest& request);
  const DirtyRateInfo& dirty_rate() const noexcept { return dirty_rate_.info(); }

  std::vector<JobInfo> jobs() const;
  /// Asks a job to end. @return kNotFound in QEMU's words
  Status Cancel(std::string_view job);
  /// Forgets a job that is over. @return kNotFound, or kInvalidArgument for one that is not
  Status Dismiss(std::string_view job);

 private:
  struct Job {
    JobInfo info;
    Done done;
    // One of them while it runs.
    std::unique_ptr<SaveJob> save = nullptr;
    std::unique_ptr<LoadJob> load = nullptr;
    std::unique_ptr<LazyRestore> restore = nullptr;
    bool active() const noexcept {
      return save != nullptr || load != nullptr || restore != nullptr;
    }
  };
  Result<Job*> Create(std::string_view id, std::string_view type, Done done);
  Status CheckIdle() const;
  Status Started(Job& job, Status status);
  void Finished(std::string_view id, const Status& status);
  void SetStatus(Job& job, JobStatus status);
  Job* Find(std::string_view id) noexcept;
  Status RestoreLazily(SnapshotChain chain, std::uint64_t bandwidth);
  static void Look(const Job& job, JobInfo& info);

  const Subject subject_;
  const SnapshotDirectory about_;
  const Events events_;
  DirtyRate dirty_rate_{subject_};
  std::vector<std::unique_ptr<Job>> jobs_;
};

}  // namespace holdfast::migration
