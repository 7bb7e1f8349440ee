// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

#include "base/thread_annotations.h"

namespace holdfast::machine {

/// `-rtc base=,clock=`.
struct RtcConfig {
  enum class Base : std::uint8_t { kUtc, kLocaltime, kDate };
  enum class Clock : std::uint8_t {
    kHost,  ///< goes with the host's time, also when that is set
    kRt,    ///< goes on steadily from the start
    kVm,    ///< goes on steadily while the guest runs
  };
  Base base = Base::kUtc;
  Clock clock = Clock::kHost;
  std::int64_t date = 0;  ///< of kDate: seconds since 1970, UTC
};

/// Nanoseconds that the guest has run for. Thread-safety: any thread.
class RunningTime {
 public:
  /// Whether it runs from now on.
  void Set(bool running) HF_EXCLUDES(mutex_);
  std::int64_t Now() const HF_EXCLUDES(mutex_);

 private:
  mutable Mutex mutex_;
  bool running_ HF_GUARDED_BY(mutex_) = false;
  std::int64_t before_ HF_GUARDED_BY(mutex_) = 0;  // up to when it was last set
  std::int64_t since_ HF_GUARDED_BY(mutex_) = 0;
};

/// The host's clock: nanoseconds since 1970.
std::int64_t HostTime();

/// The time that the machine's clock shows before the guest sets it: nanoseconds since 1970, for
/// devices::Rtc. Local time has the distance from UTC that it has now. `running` outlives it.
std::function<std::int64_t()> MakeRtcClock(const RtcConfig& config, const RunningTime& running);

}  // namespace holdfast::machine
