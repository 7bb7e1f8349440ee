// SPDX-License-Identifier: Apache-2.0
#include "migration/auto_converge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace holdfast::migration {
namespace {

using ::testing::ElementsAreArray;

TEST(AutoConverge, SlowsTheGuestDownStepByStepAsQemuDoes) {
  constexpr std::pair<std::uint64_t, std::uint64_t> kBad{100, 100}, kGood{100, 50}, kNothing{0, 0},
      kBitWorse{100, 60};
  const struct {
    const char* why;
    Parameters parameters;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> passes;  // sent, written
    std::vector<unsigned> percents;                               // 0: no change
  } cases[] = {
      {"a guest that writes as much as may be is left alone",
       {},
       {kGood, kGood, kNothing, kGood, kNothing},
       {0, 0, 0, 0, 0}},
      {"every second bad pass counts, good ones between or not",
       {},
       {kBad, kGood, kBad, kBad, kBad, kGood, kGood, kBad, kBad},
       {0, 0, 20, 0, 30, 0, 0, 0, 40}},
      {"something is more than half of nothing", {}, {{0, 1}, {0, 1}}, {0, 20}},
      {"the threshold",
       {.throttle_trigger_threshold = 100},
       {kBad, kBad, {100, 101}, {100, 101}},
       {0, 0, 0, 20}},
      {"up to the limit, and no further",
       {.cpu_throttle_initial = 50, .cpu_throttle_increment = 30, .max_cpu_throttle = 90},
       {kBad, kBad, kBad, kBad, kBad, kBad, kBad, kBad},
       {0, 50, 0, 80, 0, 90, 0, 0}},
      // 80 percent of the time it writes 60 where 50 may be: 66 would do.
      {"no more than is needed, near the end",
       {.cpu_throttle_increment = 40, .cpu_throttle_tailslow = true},
       {kBad, kBad, kBitWorse, kBitWorse, kBad, kBad},
       {0, 20, 0, 34, 0, 67}},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.why);
    AutoConverge converge(c.parameters);
    std::vector<unsigned> percents;
    for (const auto& [sent, written] : c.passes)
      percents.push_back(converge.PassEnded(sent, written).value_or(0));
    EXPECT_THAT(percents, ElementsAreArray(c.percents));
  }
}

}  // namespace
}  // namespace holdfast::migration
