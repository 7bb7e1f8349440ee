// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include <holdfast/error.h>

#include "migration/cpr_exec.h"
#include "migration/cpr_socket.h"
#include "migration/main_thread.h"
#include "migration/save_job.h"

namespace holdfast::migration {

/// `mode=cpr-transfer`: the guest goes to a monitor of the same host that waits for it on a socket.
/// That one gets RAM's descriptors first and builds its machine while the guest runs; then the
/// guest stands, and state and disks follow. Whatever fails before the other one has claimed the
/// guest, it runs on here.
///
/// Thread-safety: the main thread.
class CprTransfer {
 public:
  struct Outcome {
    std::uint64_t downtime = 0;  ///< how long the guest stood, ns
  };
  /// An error: the guest is here, and runs if it ran. Otherwise it is the other monitor's: this
  /// machine stands for good, held.
  using Done = std::function<void(Result<Outcome>)>;

  /// Starts; `done` is called on the main thread at the end, which may destroy the object then.
  /// @param path  of the socket that the other monitor waits on
  /// @return what is in the way, with nothing changed
  static Result<std::unique_ptr<CprTransfer>> Start(const Subject& subject, const std::string& path,
                                                    Done done);
  CprTransfer(const CprTransfer&) = delete;
  CprTransfer& operator=(const CprTransfer&) = delete;
  /// Cancels it, without a call of `done`.
  ~CprTransfer();

  /// Soon `done` comes with an error, unless the guest is the other monitor's already.
  void Cancel() noexcept {
    if (!disks_gone_) socket_.Shutdown();
  }

 private:
  CprTransfer(const Subject& subject, CprSocket socket, CprOwner owner, Done done)
      : subject_(subject),
        done_(std::move(done)),
        main_(subject.loop),
        socket_(std::move(socket)),
        owner_(std::move(owner)) {}

  // On a thread of its own.
  Status Work();
  void WaitForDisks();
  // On the main thread.
  Status StandStill();
  void TakeBack();
  void Finish(Status status);

  const Subject subject_;
  const Done done_;
  MainThread main_;
  CprSocket socket_;
  CprOwner owner_;
  std::vector<KeptFd> fds_;  // constant after Start()
  // The main thread's, and this job's thread's while that waits for it.
  CprState state_;
  std::uint64_t stopped_at_ = 0;
  std::atomic<bool> disks_gone_ = false;  // too late to cancel
  bool ran_ = false;
  bool held_ = false;
  std::thread thread_;
};

/// The other end of it, in the monitor that takes the guest over.
///
/// Thread-safety: one thread.
class CprArrival {
 public:
  /// Waits on `path` for a monitor, as long as it takes, and takes its descriptors into `fds`.
  static Result<std::unique_ptr<CprArrival>> Wait(const std::string& path, InheritedFds& fds);
  CprArrival(const CprArrival&) = delete;
  CprArrival& operator=(const CprArrival&) = delete;
  /// A guest that is not this monitor's by now stays where it is, and the other one hears why.
  ~CprArrival();

  /// The machine is there: the guest may stand, and its state come.
  Result<CprState> ReceiveState();
  /// The state is in the machine. Waits until the other monitor has let go of the disks.
  Status Loaded();
  /// Takes the guest, if it is still to be had: after that it may run here, and nowhere else.
  Status Claim();
  void Running();
  /// What the other monitor is told if the guest does not become this one's.
  void Failed(const Error& error) { why_ = error.ToString(); }

 private:
  CprArrival(CprSocket socket, CprOwner owner)
      : socket_(std::move(socket)), owner_(std::move(owner)) {}

  CprSocket socket_;
  CprOwner owner_;
  bool claimed_ = false;
  std::string why_ = "the new monitor has ended";
};

}  // namespace holdfast::migration
