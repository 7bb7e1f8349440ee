// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include <holdfast/dirty_tracker.h>
#include <holdfast/error.h>

#include "base/state.h"
#include "base/thread_annotations.h"
#include "machine/machine.h"
#include "migration/address.h"
#include "migration/auto_converge.h"
#include "migration/connection.h"
#include "migration/frames.h"
#include "migration/main_thread.h"
#include "migration/migration_info.h"
#include "migration/page_sender.h"
#include "migration/page_server.h"
#include "migration/return_path.h"
#include "migration/save_job.h"
#include "migration/settings.h"
#include "migration/wire.h"

namespace holdfast::migration {

/// A machine on its way to another monitor. Up to the moment in which the other side is told to run
/// it, it goes on here as if nothing had been, whatever fails. After it, in post-copy, memory that
/// is still here waits for new connections whenever the old ones are lost.
///
/// Thread-safety: the main thread; Work() is its own thread's.
class Outgoing {
 public:
  struct Request {
    Address address;
    Parameters parameters;
    Capabilities capabilities;
    std::string creator;  ///< "holdfast 0.1.0"
    std::string name;     ///< of the virtual machine
    std::string uuid;     ///< empty: not to be compared
    std::shared_ptr<const object::TlsContext> tls = nullptr;
    AddressServices services = {};
  };
  struct Events {
    std::function<void(MigrationStatus status)> status;  ///< a change
    std::function<void(std::uint64_t pass)> pass;        ///< a pass over memory begins
    /// It is over; may destroy the object.
    std::function<void(const Status& status)> done;
  };

  /// @return why this machine cannot leave, with nothing changed
  static Result<std::unique_ptr<Outgoing>> Start(const Subject& subject, Request request,
                                                 Events events);
  Outgoing(const Outgoing&) = delete;
  Outgoing& operator=(const Outgoing&) = delete;
  /// Breaks it off without a call of an event.
  ~Outgoing();

  /// Soon `done` comes with an error. @return kInvalidArgument once it cannot be taken back
  Status Cancel();
  /// From kPreSwitchover (`pause-before-switchover`): goes on. @return kInvalidArgument elsewhere
  Status Continue();
  /// Goes over to post-copy as soon as it can. @return kInvalidArgument, in QEMU's words
  Status StartPostcopy();
  /// Lets go of the connections, of which nothing is lost. @return kInvalidArgument, in QEMU's
  /// words, for one that is not in post-copy
  Status Pause() HF_EXCLUDES(mutex_);
  /// Connects again, to `to`, and takes up what was left. @return kInvalidArgument, in QEMU's
  /// words, for one that is not paused
  Status Resume(const Address& to, AddressServices services) HF_EXCLUDES(mutex_);
  /// Parameters that count while it is under way.
  void Update(const Parameters& parameters);

  MigrationStatus status() const noexcept { return status_; }
  MigrationInfo info() const HF_EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;

  Outgoing(const Subject& subject, Request request, Events events);
  // On its thread.
  Status Work();
  Status Open();
  Status HearAnswers();
  Result<FrameWriter*> Dial(ChannelKind kind, std::uint32_t index);
  Status SendWhileRunning();
  bool MayFinish(std::uint64_t pending) const;
  Status Serve(const PageRequest& request) HF_EXCLUDES(mutex_);
  bool PostcopyWanted() const HF_EXCLUDES(mutex_);
  Status WaitForContinue() HF_EXCLUDES(mutex_);
  Status HandOver(bool postcopy);
  Status SendMissing(const DirtyPages& missing);
  void SlowGuestDown(std::uint64_t sent, std::uint64_t written);
  Status StartServer();
  Status ServeMemory();
  Status WaitForAddress() HF_EXCLUDES(mutex_);
  Status Reconnect();
  void LetGo(Error error) HF_EXCLUDES(mutex_);
  Error Explain(Error error) const HF_EXCLUDES(mutex_);
  void CountSent();
  void Measure(std::uint64_t bytes, Clock::time_point since);
  // On the main thread.
  Status StartTracking();
  Status StandStill();
  Status SaveSections();
  Status GiveUpDisks();
  Status TakeDisksBack();
  void EndTracking();
  void GoOn();
  void Finished(Status status);
  // On any.
  void SetStatus(MigrationStatus status);
  void Lost(const Error& error) HF_EXCLUDES(mutex_);
  void StopDialling() HF_EXCLUDES(mutex_);
  void ShutChannels() noexcept HF_EXCLUDES(mutex_);
  bool Is(Capability capability) const { return request_.capabilities[capability]; }

  const Subject subject_;
  const Request request_;
  const Events events_;
  MainThread main_;
  std::atomic<bool> cancelled_ = false;
  RateLimit limit_;
  MigrationId id_{};
  std::vector<std::uint64_t> block_sizes_;  // constant

  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  std::stop_source stop_ HF_GUARDED_BY(mutex_);  // of whatever connects
  // The thread's to change; everybody may shut them down.
  std::vector<std::unique_ptr<Channel>> channels_ HF_GUARDED_BY(mutex_);
  bool continue_ HF_GUARDED_BY(mutex_) = false;
  bool postcopy_wanted_ HF_GUARDED_BY(mutex_) = false;
  PageSender* interruptible_ HF_GUARDED_BY(mutex_) = nullptr;
  std::unique_ptr<PageServer> server_ HF_GUARDED_BY(mutex_);
  std::optional<Error> lost_ HF_GUARDED_BY(mutex_);  // what was noticed first here
  std::optional<Error> why_paused_ HF_GUARDED_BY(mutex_);
  struct Way {
    Address to;
    AddressServices services;
  };
  std::optional<Way> resume_ HF_GUARDED_BY(mutex_);  // where to connect again

  // The thread's. Users after what they use.
  Way way_;
  std::uint32_t recoveries_ = 0;
  std::uint64_t sent_before_ = 0;                      // bytes, on connections that are lost
  std::vector<std::unique_ptr<FrameWriter>> writers_;  // the main one first
  FrameWriter* urgent_ = nullptr;
  std::unique_ptr<ReturnPath> answers_;
  std::unique_ptr<PageSender> sender_;
  AutoConverge converge_;

  // The main thread's while it runs something for the thread, and else that one's.
  std::unique_ptr<DirtyTracker> tracker_;
  DirtyPages dirty_;
  std::vector<state::SavedSection> sections_;
  bool stopped_guest_ = false;
  bool held_ = false;
  bool disks_given_up_ = false;

  std::atomic<bool> committed_ = false;  // the guest is the other side's
  std::atomic<bool> runs_there_ = false;
  // For info().
  std::atomic<MigrationStatus> status_ = MigrationStatus::kSetup;
  const Clock::time_point started_ = Clock::now();
  Clock::time_point stood_;  // since when the guest stands; the thread's
  std::atomic<std::int64_t> setup_ms_ = -1;
  std::atomic<std::int64_t> downtime_ms_ = -1;
  std::atomic<std::int64_t> expected_ms_ = -1;
  std::atomic<std::uint64_t> dirty_rate_ = 0;  // pages a second
  std::atomic<std::uint64_t> speed_ = 0;       // bytes of memory a second
  std::atomic<std::uint64_t> ram_total_ = 0;
  std::atomic<std::uint64_t> transferred_ = 0;
  std::atomic<std::uint64_t> normal_ = 0;
  std::atomic<std::uint64_t> zero_ = 0;
  std::atomic<std::uint64_t> remaining_ = 0;
  std::atomic<std::uint64_t> passes_ = 0;
  std::atomic<std::uint64_t> urgent_requests_ = 0;
  std::thread thread_;
};

}  // namespace holdfast::migration
