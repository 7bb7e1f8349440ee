// SPDX-License-Identifier: Apache-2.0
#include "machine/topology.h"

#include <gtest/gtest.h>

namespace holdfast::machine {
namespace {

TEST(ApicIds, GivePackageCoreAndThreadTheirOwnBits) {
  const struct {
    const char* why;
    CpuTopology topology;
    std::vector<std::uint32_t> want;
  } cases[] = {
      {"one of everything", {1, 1, 1, 1, 1}, {0}},
      {"sockets only", {4, 4, 4, 1, 1}, {0, 1, 2, 3}},
      {"powers of two leave no gap", {8, 8, 2, 2, 2}, {0, 1, 2, 3, 4, 5, 6, 7}},
      {"three cores take two bits", {6, 6, 2, 3, 1}, {0, 1, 2, 4, 5, 6}},
      {"three threads take two bits", {6, 6, 1, 2, 3}, {0, 1, 2, 4, 5, 6}},
      {"CPUs that may come later count too", {1, 2, 2, 1, 1}, {0, 1}},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.why);
    EXPECT_EQ(ApicIds(c.topology), c.want);
  }
}

}  // namespace
}  // namespace holdfast::machine
