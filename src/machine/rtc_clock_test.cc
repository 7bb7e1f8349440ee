// SPDX-License-Identifier: Apache-2.0
#include "machine/rtc_clock.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <ctime>
#include <string>

namespace holdfast::machine {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
// A test machine may stand still for a while between two readings.
constexpr std::int64_t kPatience = 60 * kSecond;

using Base = RtcConfig::Base;
using Clock = RtcConfig::Clock;

std::int64_t Utc() {
  return std::time(nullptr) * kSecond;
}

TEST(RtcClockTest, StartsWhereTheBaseSaysAndGoesOn) {
  ::setenv("TZ", "XYZ-05:30", 1);  // east of Greenwich, no summer time
  ::tzset();
  const RunningTime running;
  const struct {
    RtcConfig config;
    std::int64_t want;
  } cases[] = {
      {{.base = Base::kUtc, .clock = Clock::kHost}, Utc()},
      {{.base = Base::kLocaltime, .clock = Clock::kHost}, Utc() + 19'800 * kSecond},
      {{.base = Base::kLocaltime, .clock = Clock::kRt}, Utc() + 19'800 * kSecond},
      {{.base = Base::kDate, .clock = Clock::kRt, .date = 1000}, 1000 * kSecond},
      {{.base = Base::kDate, .clock = Clock::kHost, .date = 1000}, 1000 * kSecond},
  };
  for (const auto& c : cases) {
    const auto clock = MakeRtcClock(c.config, running);
    const std::int64_t first = clock();
    EXPECT_GE(first, c.want - kSecond);
    EXPECT_LE(first, c.want + kPatience);
    std::int64_t later = clock();
    for (int i = 0; later == first && i < 1'000'000'000; ++i) later = clock();
    EXPECT_GT(later, first);
  }
}

TEST(RtcClockTest, TheGuestsClockStandsWithTheGuest) {
  RunningTime running;
  const auto clock = MakeRtcClock({.base = Base::kDate, .clock = Clock::kVm, .date = 7}, running);
  EXPECT_EQ(clock(), 7 * kSecond);
  EXPECT_EQ(clock(), 7 * kSecond);
  running.Set(true);
  while (clock() == 7 * kSecond) {
  }
  running.Set(true);  // again: nothing is lost
  running.Set(false);
  const std::int64_t stopped = clock();
  EXPECT_GT(stopped, 7 * kSecond);
  EXPECT_EQ(clock(), stopped);
}

}  // namespace
}  // namespace holdfast::machine
