// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>
#include <holdfast/vcpu.h>
#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "base/thread_annotations.h"
#include "machine/conversion_exits.h"

namespace holdfast::devices {
class Bus;
}

namespace holdfast::machine {

/// One vCPU and the thread that runs it. The thread exists from Start() on and stands (waits on a
/// condition, not in KVM) whenever it is not told to run.
///
/// Thread-safety: control functions on the main thread; StopCurrent() on the vCPU's own thread,
/// from inside a device callback; RestUntil() on any thread.
class VcpuThread {
 public:
  using Clock = std::chrono::steady_clock;

  /// What the guest did that the thread cannot answer itself. Called on the vCPU's thread, which
  /// stands by the time the main loop looks.
  struct Events {
    std::function<void()> triple_fault;
    /// The vCPU cannot go on; `error` says why, for people.
    std::function<void(Error error)> internal_error;
  };

  /// `io`, `mmio` and `conversion` (null: memory is never private) outlive the thread.
  VcpuThread(unsigned index, kvm::Vcpu vcpu, const devices::Bus& io, const devices::Bus& mmio,
             Events events, ConversionExits* conversion = nullptr);
  VcpuThread(const VcpuThread&) = delete;
  VcpuThread& operator=(const VcpuThread&) = delete;
  /// Ends the thread and waits for it.
  ~VcpuThread();

  /// Starts the thread, standing. Fails if the host has no thread left.
  Status Start();

  unsigned index() const noexcept { return index_; }
  /// The host's id of the thread, for pinning and accounting; 0 before Start().
  pid_t tid() const noexcept { return tid_; }
  /// For state access while the thread stands.
  const kvm::Vcpu& vcpu() const noexcept { return vcpu_; }

  void Run() HF_EXCLUDES(mutex_);
  /// Asks the thread to stand; WaitUntilStanding() waits for it. In two steps so that all vCPUs
  /// stop at once rather than one after the other. When it stands, no I/O of the guest is half
  /// done: KVM has completed the instruction.
  void Stop() HF_EXCLUDES(mutex_);
  void WaitUntilStanding() HF_EXCLUDES(mutex_);
  /// The guest executes nothing before `when` even if it is to run; a time that is over ends an
  /// earlier rest. Stop() works as ever meanwhile. After Start().
  void RestUntil(Clock::time_point when) HF_EXCLUDES(mutex_);
  /// Whether the guest's own doing (StopCurrent) made it stand since the last Run(): then what it
  /// asked for is still on its way to the main thread, and it must not run on meanwhile.
  bool stopped_itself() HF_EXCLUDES(mutex_);
  /// Makes the thread that calls it (a vCPU's, inside a device callback) stand before its guest
  /// executes another instruction. Does nothing on other threads.
  static void StopCurrent();

 private:
  enum class Target { kStand, kRun, kExit };

  void Loop();
  bool WaitForRun() HF_EXCLUDES(mutex_);
  void RunGuest();
  void HandleExit();
  bool NothingWasBeingDelivered() const;
  void HandleIo();
  void HandleMmio();
  void HandleHypercall();
  void HandleMemoryFault();
  void MapIn(const ConversionExits::Range& range);
  void Broken(Error error);
  void SetTarget(Target target) HF_EXCLUDES(mutex_);

  const unsigned index_;
  kvm::Vcpu vcpu_;
  const devices::Bus& io_;
  const devices::Bus& mmio_;
  const Events events_;
  ConversionExits* const conversion_;

  // Shared by the main thread (sets target_) and the vCPU's (sets standing_).
  Mutex mutex_;
  std::condition_variable_any changed_;
  Target target_ HF_GUARDED_BY(mutex_) = Target::kStand;
  bool standing_ HF_GUARDED_BY(mutex_) = false;
  bool stopped_itself_ HF_GUARDED_BY(mutex_) = false;
  Clock::time_point rest_until_ HF_GUARDED_BY(mutex_){};
  pid_t tid_ = 0;  // written before the thread stands for the first time, constant from then on
  std::thread thread_;  // main thread's; constant from Start() on
};

}  // namespace holdfast::machine
