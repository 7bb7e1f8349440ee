// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <string_view>

#include <holdfast/error.h>

#include "base/thread_annotations.h"

namespace holdfast::object {

/// One limit of a rate: bytes or operations each second.
struct ThrottleLimit {
  std::uint64_t average = 0;        ///< 0: no limit
  std::uint64_t maximum = 0;        ///< in bursts; 0: a tenth of a second's worth at once, no more
  std::uint64_t burst_seconds = 1;  ///< how long `maximum` may be kept up
  bool operator==(const ThrottleLimit&) const = default;
};

/// The limits QEMU knows, in the order of kThrottleNames.
enum class ThrottleKind : std::uint8_t {
  kBpsTotal,
  kBpsRead,
  kBpsWrite,
  kIopsTotal,
  kIopsRead,
  kIopsWrite,
};
inline constexpr std::size_t kThrottleKinds = 6;
/// "bps-total" …, as `-object throttle-group,x-NAME=` and `-drive throttling.NAME=` have them.
inline constexpr std::array<std::string_view, kThrottleKinds> kThrottleNames = {
    "bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write"};

struct ThrottleLimits {
  std::array<ThrottleLimit, kThrottleKinds> limits;
  std::uint64_t iops_size = 0;  ///< larger requests count as several of so many bytes; 0: as one

  ThrottleLimit& operator[](ThrottleKind kind) { return limits[static_cast<std::size_t>(kind)]; }
  const ThrottleLimit& operator[](ThrottleKind kind) const {
    return limits[static_cast<std::size_t>(kind)];
  }
  bool any() const noexcept;
  /// QEMU's rules and words: total and one direction exclude each other, a maximum needs an average
  /// and is not below it, and so on.
  Status Check() const;
  bool operator==(const ThrottleLimits&) const = default;
};

/// Limits a rate, of one disk or card or of several together, by leaky buckets.
///
/// Thread-safety: any thread.
class Throttle {
 public:
  using Clock = std::chrono::steady_clock;

  void Set(const ThrottleLimits& limits) HF_EXCLUDES(mutex_);
  ThrottleLimits limits() const HF_EXCLUDES(mutex_);
  /// Whether there is any limit. Cheap.
  bool enabled() const noexcept { return enabled_.load(std::memory_order_relaxed); }

  /// Lets a request of `bytes` through, and counts it, or says how long to wait before asking
  /// again.
  /// @return zero: go on
  Clock::duration Take(bool write, std::uint64_t bytes, Clock::time_point now) HF_EXCLUDES(mutex_);

 private:
  struct Bucket {
    double level = 0;        // units over what the average has let go
    double burst_level = 0;  // units over what the maximum has let go
  };
  void Leak(Clock::time_point now) HF_REQUIRES(mutex_);

  std::atomic<bool> enabled_ = false;
  mutable Mutex mutex_;
  ThrottleLimits limits_ HF_GUARDED_BY(mutex_);
  std::array<Bucket, kThrottleKinds> buckets_ HF_GUARDED_BY(mutex_);
  Clock::time_point last_ HF_GUARDED_BY(mutex_);
};

}  // namespace holdfast::object
