// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <holdfast/dirty_tracker.h>
#include <holdfast/error.h>

#include "base/state.h"
#include "machine/machine.h"
#include "migration/inherited_fds.h"
#include "migration/main_thread.h"
#include "migration/progress.h"
#include "migration/snapshot_memory.h"
#include "migration/snapshot_reader.h"
#include "migration/snapshot_writer.h"

namespace holdfast {
namespace kvm {
class Vm;
}
}  // namespace holdfast

namespace holdfast::migration {

/// The virtual machine that snapshots are taken of and loaded into; all of it outlives the jobs.
struct Subject {
  EventLoop& loop;
  machine::Machine& machine;
  AddressSpace& memory;  ///< the machine's
  kvm::Vm& vm;
  /// Makes disks keep what they have completed. Main thread, vCPUs standing.
  std::function<Status()> flush_disks = {};
  /// Flushes disks and gives up their locks for another process to take, and takes them again.
  /// Main thread, vCPUs standing. @return why not, with nothing changed
  std::function<Status()> inactivate_disks = {};
  std::function<Status()> activate_disks = {};

  // For a monitor of this host that takes the guest over (docs/live-upgrade.md).

  std::string creator = {};  ///< "holdfast 0.1.0"
  /// Whether anything but RAM keeps the guest here, and says so in a sentence; RAM is looked at by
  /// those who ask.
  std::function<Status()> may_hand_over = {};
  /// Whether this process may become another program.
  std::function<Status()> may_exec = {};
  /// What outlives this monitor besides RAM.
  std::function<std::vector<KeptFd>()> kept_fds = {};
  /// The last thing before this process becomes another program: what is queued is written, the
  /// terminal put back.
  std::function<void()> before_exec = {};
};

/// What is to be saved, and how.
struct SaveRequest {
  std::string path;
  /// The guest runs while its memory is written, and stands still for the last of it only.
  bool live = false;
  bool zstd = false;
  /// A differential snapshot: the file that it is to be the difference to. Empty: a full one.
  std::string parent = {};
  /// The guest stands afterwards, as after `stop`: its disks stay as they were then. The snapshot
  /// is of a running one all the same.
  bool stop = false;
  /// How long the guest may stand still at the end of a live one, for the memory alone.
  std::uint64_t downtime_limit_ms = 300;
};

/// A snapshot being saved, on threads of its own. The guest runs on afterwards if it ran before,
/// whatever becomes of the snapshot.
///
/// Thread-safety: the main thread; Work() is the job's own.
class SaveJob {
 public:
  using Done = std::function<void(Status)>;

  /// Starts. `about` says of whom the snapshot is (creator, name, command line). `done` is called
  /// on the main thread at the end, which may destroy the job then.
  /// @return what is wrong with the request or its files, with nothing changed
  static Result<std::unique_ptr<SaveJob>> Start(const Subject& subject, SaveRequest request,
                                                SnapshotDirectory about, Done done);
  SaveJob(const SaveJob&) = delete;
  SaveJob& operator=(const SaveJob&) = delete;
  /// Cancels it, without a call of `done`.
  ~SaveJob();

  /// Soon `done` comes with an error, unless all was written already.
  void Cancel() noexcept { progress_.cancelled = true; }
  const Progress& progress() const noexcept { return progress_; }

 private:
  SaveJob(const Subject& subject, SaveRequest request, SnapshotDirectory about, Done done)
      : subject_(subject),
        request_(std::move(request)),
        about_(std::move(about)),
        done_(std::move(done)),
        main_(subject.loop) {}

  // On the job's thread.
  Status Work();
  Status WriteWhileRunning(MemoryPasses& passes);
  // On the main thread.
  Status StartTracking();
  Status StandStill();
  void EndTracking();
  void GoOn(bool saved);
  void Finished(Status status);

  const Subject subject_;
  const SaveRequest request_;
  SnapshotDirectory about_;
  const Done done_;
  MainThread main_;
  Progress progress_;
  std::optional<SnapshotChain> parent_;
  std::unique_ptr<SnapshotWriter> writer_;
  // What follows belongs to the main thread while it runs something for the job's thread, and to
  // that one else.
  std::unique_ptr<DirtyTracker> tracker_;
  DirtyPages last_;  // what is to be written when the guest stands
  std::vector<state::SavedSection> sections_;
  bool stopped_guest_ = false;
  bool held_ = false;  // the machine
  std::thread thread_;
};

}  // namespace holdfast::migration
