// SPDX-License-Identifier: Apache-2.0
#include "object/throttle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <string>

#include "base/event_loop.h"
#include "object/iothread.h"
#include "object/object.h"
#include "object/throttle_group.h"

namespace holdfast::object {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

ThrottleLimits Only(ThrottleKind kind, ThrottleLimit limit) {
  ThrottleLimits limits;
  limits[kind] = limit;
  return limits;
}

// How many requests of `bytes` get through in `time`, always asking again when told to.
unsigned LetThrough(Throttle& throttle, bool write, std::uint64_t bytes, seconds time) {
  const auto start = Throttle::Clock::now();
  auto now = start;
  unsigned count = 0;
  while (now < start + time) {
    const auto wait = throttle.Take(write, bytes, now);
    if (wait.count() == 0) {
      ++count;
    } else {
      now += wait;
    }
  }
  return count;
}

TEST(Throttle, HoldsTheAverageRate) {
  const struct {
    const char* why;
    ThrottleLimits limits;
    bool write;
    std::uint64_t bytes;
    unsigned least;
    unsigned most;
  } kCases[] = {
      {"operations", Only(ThrottleKind::kIopsTotal, {.average = 100}), false, 4096, 990, 1020},
      {"bytes", Only(ThrottleKind::kBpsTotal, {.average = 1'000'000}), true, 10'000, 990, 1020},
      {"one large request at a time", Only(ThrottleKind::kBpsWrite, {.average = 1000}), true, 2000,
       5, 6},
      {"a burst comes on top", Only(ThrottleKind::kIopsTotal, {.average = 100, .maximum = 500}),
       false, 1, 1490, 1510},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    Throttle throttle;
    throttle.Set(c.limits);
    const unsigned count = LetThrough(throttle, c.write, c.bytes, seconds(10));
    EXPECT_GE(count, c.least);
    EXPECT_LE(count, c.most);
  }
}

TEST(Throttle, LimitsOnlyTheDirectionItIsAbout) {
  Throttle throttle;
  EXPECT_FALSE(throttle.enabled());
  throttle.Set(Only(ThrottleKind::kIopsWrite, {.average = 1}));
  EXPECT_TRUE(throttle.enabled());
  const auto now = Throttle::Clock::now();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(throttle.Take(false, 1, now).count(), 0);
  EXPECT_EQ(throttle.Take(true, 1, now).count(), 0);
  EXPECT_GT(throttle.Take(true, 1, now).count(), 0);
}

TEST(Throttle, CountsLargeRequestsAsSeveral) {
  Throttle throttle;
  ThrottleLimits limits = Only(ThrottleKind::kIopsTotal, {.average = 100});
  limits.iops_size = 4096;
  throttle.Set(limits);
  EXPECT_NEAR(LetThrough(throttle, false, 40960, seconds(10)), 100, 3);
}

TEST(Throttle, RefusesLimitsThatContradictEachOther) {
  const struct {
    const char* option;
    const char* error;
  } kCases[] = {
      {"x-bps-total=5,x-bps-read=5", "cannot be used at the same time"},
      {"x-iops-total-max=5", "bps_max/iops_max require corresponding bps/iops values"},
      {"x-iops-total=5,x-iops-total-max=4", "bps_max/iops_max cannot be lower than bps/iops"},
      {"x-iops-size=5", "iops size requires an iops value to be set"},
      {"x-bps-read=5,x-bps-read-max-length=0", "the burst length cannot be 0"},
      {"x-bps-read=5,x-bps-read-max-length=2", "burst length set without burst rate"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.option);
    ObjectStore store;
    const auto made = store.AddFromOption(std::string("throttle-group,id=t,") + c.option);
    ASSERT_FALSE(made);
    EXPECT_THAT(made.error().message(), HasSubstr(c.error));
  }
}

TEST(ThrottleGroup, CannotBeDeletedWhileItIsUsed) {
  ObjectStore store;
  const auto made = store.AddFromOption("throttle-group,id=t,x-iops-total=10");
  ASSERT_TRUE(made) << made.error().ToString();
  auto used = dynamic_cast<ThrottleGroup*>(*made)->throttle();
  EXPECT_TRUE(used->enabled());
  EXPECT_FALSE(store.Remove("t"));
  used.reset();
  EXPECT_TRUE(store.Remove("t"));
}

TEST(IoThread, RunsWorkOnAThreadOfItsOwn) {
  ObjectStore store;
  const auto made = store.AddFromOption("iothread,id=io0,poll-max-ns=0");
  ASSERT_TRUE(made) << made.error().ToString();
  auto* const thread = dynamic_cast<IoThread*>(*made);
  EXPECT_EQ(thread->tid(), 0);
  const auto loop = thread->Loop();
  ASSERT_TRUE(loop);
  std::atomic<pid_t> worker = 0;
  (*loop)->Post([&] {
    worker = ::gettid();
    worker.notify_all();
  });
  worker.wait(0);
  EXPECT_EQ(worker, thread->tid());
  EXPECT_NE(worker, ::gettid());
  thread->AddUser();
  EXPECT_FALSE(store.Remove("io0"));
  thread->RemoveUser();
  EXPECT_TRUE(store.Remove("io0"));
}

}  // namespace
}  // namespace holdfast::object
