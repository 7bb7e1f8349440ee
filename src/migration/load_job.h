// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <holdfast/error.h>

#include "base/state.h"
#include "migration/main_thread.h"
#include "migration/progress.h"
#include "migration/save_job.h"
#include "migration/snapshot_reader.h"

namespace holdfast::migration {

/// Brings a machine that exists back to a snapshot of it. All of the snapshot is read and checked
/// before anything is changed, so that a damaged one costs nothing. The guest runs afterwards if it
/// ran when it was saved and when the job began.
///
/// Thread-safety: the main thread.
class LoadJob {
 public:
  using Done = std::function<void(Status)>;

  /// Starts; `done` is called on the main thread at the end, which may destroy the job then.
  /// @return what is wrong with the file, with nothing changed
  static Result<std::unique_ptr<LoadJob>> Start(const Subject& subject, const std::string& path,
                                                Done done);
  LoadJob(const LoadJob&) = delete;
  LoadJob& operator=(const LoadJob&) = delete;
  /// Cancels it, without a call of `done`: a machine whose memory was being changed is of no use.
  ~LoadJob();

  /// Ends it as long as nothing was changed; later it does nothing.
  void Cancel() noexcept { checking_.cancelled = true; }
  /// Of the check; the load itself is as long again.
  const Progress& progress() const noexcept { return checking_; }

 private:
  LoadJob(const Subject& subject, SnapshotChain chain, Done done)
      : subject_(subject), chain_(std::move(chain)), done_(std::move(done)), main_(subject.loop) {}
  Status Work();
  Status StandStill();
  Status Finish(Status memory);

  const Subject subject_;
  const SnapshotChain chain_;
  const Done done_;
  MainThread main_;
  Progress checking_;
  Progress loading_;
  std::vector<state::SavedSection> sections_;  // constant after Start()
  bool held_ = false;                          // main thread's
  bool ran_ = false;                           // main thread's
  std::thread thread_;
};

}  // namespace holdfast::migration
