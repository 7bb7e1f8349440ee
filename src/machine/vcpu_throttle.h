// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <span>
#include <thread>

#include "base/thread_annotations.h"
#include "machine/vcpu_thread.h"

namespace holdfast::machine {

/// Slows all vCPUs of a machine down: each runs for 10 ms and then rests for as long as makes the
/// share asked for. A vCPU that rests can be stopped at once.
///
/// Thread-safety: the main thread; a thread of its own, which exists while vCPUs are slowed down,
/// tells them when to rest.
class VcpuThrottle {
 public:
  using Vcpus = std::span<const std::unique_ptr<VcpuThread>>;

  VcpuThrottle() = default;
  VcpuThrottle(const VcpuThrottle&) = delete;
  VcpuThrottle& operator=(const VcpuThrottle&) = delete;
  ~VcpuThrottle() { Stop(); }

  /// From now on `vcpus`, the same each time, which have been started and outlive this object, rest
  /// for `percent` (0 to 99; 0: not at all) of the time. @return an error if the host has no thread
  /// left; then they are as fast as ever
  Status Set(Vcpus vcpus, unsigned percent) HF_EXCLUDES(mutex_);
  unsigned percent() const noexcept { return percent_; }

 private:
  void Work() HF_EXCLUDES(mutex_);
  void Stop() HF_EXCLUDES(mutex_);

  Vcpus vcpus_;  // constant while the thread exists
  unsigned percent_ = 0;
  std::thread thread_;

  Mutex mutex_;
  std::condition_variable_any changed_;
  bool ends_ HF_GUARDED_BY(mutex_) = false;
  std::chrono::nanoseconds rest_ HF_GUARDED_BY(mutex_){};
};

}  // namespace holdfast::machine
