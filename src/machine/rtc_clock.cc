// SPDX-License-Identifier: Apache-2.0
#include "machine/rtc_clock.h"

#include <ctime>

namespace holdfast::machine {
namespace {

constexpr std::int64_t kNsPerSecond = 1'000'000'000;

std::int64_t Read(clockid_t clock) {
  timespec now{};
  ::clock_gettime(clock, &now);
  return now.tv_sec * kNsPerSecond + now.tv_nsec;
}

std::int64_t StartTime(const RtcConfig& config, std::int64_t now) {
  if (config.base == RtcConfig::Base::kDate) return config.date * kNsPerSecond;
  if (config.base == RtcConfig::Base::kUtc) return now;
  const std::time_t seconds = now / kNsPerSecond;
  std::tm local{};
  ::localtime_r(&seconds, &local);
  return now + local.tm_gmtoff * kNsPerSecond;
}

}  // namespace

void RunningTime::Set(bool running) {
  const std::int64_t now = Read(CLOCK_MONOTONIC);
  const MutexLock lock(mutex_);
  if (running_) before_ += now - since_;
  since_ = now;
  running_ = running;
}

std::int64_t RunningTime::Now() const {
  const MutexLock lock(mutex_);
  return before_ + (running_ ? Read(CLOCK_MONOTONIC) - since_ : 0);
}

std::int64_t HostTime() {
  return Read(CLOCK_REALTIME);
}

std::function<std::int64_t()> MakeRtcClock(const RtcConfig& config, const RunningTime& running) {
  const std::int64_t now = Read(CLOCK_REALTIME);
  const std::int64_t start = StartTime(config, now);
  switch (config.clock) {
    case RtcConfig::Clock::kRt:
      return [offset = start - Read(CLOCK_MONOTONIC)] { return Read(CLOCK_MONOTONIC) + offset; };
    case RtcConfig::Clock::kVm:
      return [&running, offset = start - running.Now()] { return running.Now() + offset; };
    case RtcConfig::Clock::kHost:
      break;
  }
  return [offset = start - now] { return Read(CLOCK_REALTIME) + offset; };
}

}  // namespace holdfast::machine
