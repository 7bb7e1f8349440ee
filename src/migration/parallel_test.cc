// SPDX-License-Identifier: Apache-2.0
#include "migration/parallel.h"

#include <gtest/gtest.h>

#include <array>

namespace holdfast::migration {
namespace {

TEST(ForEachInParallel, EveryNumberIsWorkedOnOnce) {
  std::array<std::atomic<int>, 1000> seen{};
  const std::atomic<bool> cancelled = false;
  ASSERT_TRUE(ForEachInParallel(seen.size(), cancelled, [&](std::size_t i) -> Status {
    ++seen[i];
    return {};
  }));
  for (const auto& count : seen) EXPECT_EQ(count, 1);
  EXPECT_TRUE(ForEachInParallel(0, cancelled, [](std::size_t) -> Status {
    return Fail(Errc::kSystem, "there is nothing to do");
  }));
}

TEST(ForEachInParallel, TheFirstErrorEndsItAndIsTold) {
  std::atomic<std::size_t> calls = 0;
  const std::atomic<bool> cancelled = false;
  const Status status = ForEachInParallel(1'000'000, cancelled, [&](std::size_t i) -> Status {
    ++calls;
    if (i == 10) return Fail(Errc::kMalformed, "the tenth is damaged");
    return {};
  });
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message(), "the tenth is damaged");
  EXPECT_LT(calls, 1'000'000U);
}

TEST(ForEachInParallel, WhatIsCancelledEndsWithoutDoingTheRest) {
  std::atomic<bool> cancelled = false;
  std::atomic<std::size_t> calls = 0;
  const Status status = ForEachInParallel(1'000'000, cancelled, [&](std::size_t) -> Status {
    if (++calls == 5) cancelled = true;
    return {};
  });
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message(), "it was cancelled");
  EXPECT_LT(calls, 1'000'000U);
}

}  // namespace
}  // namespace holdfast::migration
