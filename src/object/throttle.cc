// SPDX-License-Identifier: Apache-2.0
#include "object/throttle.h"

#include <fmt/format.h>

#include <algorithm>

namespace holdfast::object {
namespace {

// Beyond this a rate is a mistake; it keeps the arithmetic exact (QEMU's limit too).
constexpr std::uint64_t kLargest = 1'000'000'000'000'000ULL;
constexpr double kSlice = 0.1;  // seconds: what may go at once without a maximum

bool IsBytes(std::size_t kind) {
  return kind < 3;
}
// Whether a limit is about this direction.
bool Concerns(std::size_t kind, bool write) {
  const std::size_t which = kind % 3;
  return which == 0 || (which == 2) == write;
}

double Seconds(Throttle::Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

bool ThrottleLimits::any() const noexcept {
  return std::any_of(limits.begin(), limits.end(),
                     [](const ThrottleLimit& limit) { return limit.average != 0; });
}

Status ThrottleLimits::Check() const {
  constexpr std::array<std::string_view, 2> kFamily = {"bps", "iops"};
  for (std::size_t family = 0; family < 2; ++family) {
    const ThrottleLimit* const of = &limits[family * 3];
    const bool averages = of[0].average != 0 && (of[1].average != 0 || of[2].average != 0);
    const bool maxima = of[0].maximum != 0 && (of[1].maximum != 0 || of[2].maximum != 0);
    if (!averages && !maxima) continue;
    const std::string_view suffix = averages ? "" : "_max";
    return Fail(
        Errc::kInvalidArgument,
        "bps/iops/max total values and read/write values cannot be used at the same time",
        fmt::format("Give either {0}{1} or {0}_rd{1} and {0}_wr{1}.", kFamily[family], suffix));
  }
  if (iops_size != 0 && limits[3].average == 0 && limits[4].average == 0 &&
      limits[5].average == 0) {
    return Fail(Errc::kInvalidArgument, "iops size requires an iops value to be set");
  }
  for (std::size_t kind = 0; kind < kThrottleKinds; ++kind) {
    const ThrottleLimit& limit = limits[kind];
    const auto fail = [&](std::string_view what) {
      return Fail(Errc::kInvalidArgument, std::string(what),
                  fmt::format("It is about the limit {}.", kThrottleNames[kind]));
    };
    if (limit.average > kLargest || limit.maximum > kLargest) {
      return fail(fmt::format("bps/iops/max values must be within [0, {}]", kLargest));
    }
    if (limit.burst_seconds == 0) return fail("the burst length cannot be 0");
    if (limit.burst_seconds > 1 && limit.maximum == 0) {
      return fail("burst length set without burst rate");
    }
    if (limit.maximum != 0 && limit.average == 0) {
      return fail("bps_max/iops_max require corresponding bps/iops values");
    }
    if (limit.maximum != 0 && limit.maximum < limit.average) {
      return fail("bps_max/iops_max cannot be lower than bps/iops");
    }
    if (limit.burst_seconds > kLargest / std::max<std::uint64_t>(limit.maximum, 1)) {
      return fail("burst length too high for this burst rate");
    }
  }
  return {};
}

void Throttle::Set(const ThrottleLimits& limits) {
  const MutexLock lock(mutex_);
  limits_ = limits;
  buckets_ = {};
  last_ = Clock::now();
  enabled_ = limits.any();
}

ThrottleLimits Throttle::limits() const {
  const MutexLock lock(mutex_);
  return limits_;
}

void Throttle::Leak(Clock::time_point now) {
  const double seconds = now > last_ ? Seconds(now - last_) : 0;
  last_ = std::max(last_, now);
  for (std::size_t kind = 0; kind < kThrottleKinds; ++kind) {
    const ThrottleLimit& limit = limits_.limits[kind];
    Bucket& bucket = buckets_[kind];
    bucket.level = std::max(0.0, bucket.level - static_cast<double>(limit.average) * seconds);
    bucket.burst_level =
        std::max(0.0, bucket.burst_level - static_cast<double>(limit.maximum) * seconds);
  }
}

// A request may start while its buckets are not full; it may overfill them, and those behind it
// wait the longer. So a request larger than a bucket passes too.
Throttle::Clock::duration Throttle::Take(bool write, std::uint64_t bytes, Clock::time_point now) {
  const MutexLock lock(mutex_);
  Leak(now);
  double wait = 0;
  for (std::size_t kind = 0; kind < kThrottleKinds; ++kind) {
    const ThrottleLimit& limit = limits_.limits[kind];
    if (limit.average == 0 || !Concerns(kind, write)) continue;
    const auto average = static_cast<double>(limit.average);
    const auto maximum = static_cast<double>(limit.maximum);
    const double capacity =
        limit.maximum == 0 ? average * kSlice : maximum * static_cast<double>(limit.burst_seconds);
    wait = std::max(wait, (buckets_[kind].level - capacity) / average);
    if (limit.burst_seconds > 1) {
      wait = std::max(wait, (buckets_[kind].burst_level - maximum * kSlice) / maximum);
    }
  }
  if (wait > 0) {
    // At least a little, so that rounding cannot make the caller spin.
    const auto least = std::chrono::duration_cast<Clock::duration>(std::chrono::microseconds(50));
    return std::max(least, std::chrono::duration_cast<Clock::duration>(
                               std::chrono::duration<double>(std::min(wait, 3600.0))));
  }
  for (std::size_t kind = 0; kind < kThrottleKinds; ++kind) {
    if (limits_.limits[kind].average == 0 || !Concerns(kind, write)) continue;
    double units = static_cast<double>(bytes);
    if (!IsBytes(kind)) {
      units = limits_.iops_size == 0
                  ? 1.0
                  : std::max(1.0, units / static_cast<double>(limits_.iops_size));
    }
    buckets_[kind].level += units;
    buckets_[kind].burst_level += units;
  }
  return {};
}

}  // namespace holdfast::object
