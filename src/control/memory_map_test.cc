// SPDX-License-Identifier: Apache-2.0
#include "control/memory_map.h"

#include <gtest/gtest.h>
#include <holdfast/address_space.h>
#include <holdfast/numa_policy.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <memory>

namespace holdfast::control {
namespace {

class MemoryMapTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto low = RamBlock::CreateMemfd("low", 8 * kMiB);
    auto high = RamBlock::CreateMemfd("high", 4 * kMiB);
    ASSERT_TRUE(low && high);
    low_ = std::move(*low);
    high_ = std::move(*high);
    // Not at a multiple of the cell, and behind a hole.
    ASSERT_TRUE(memory_.AddRam(GuestAddress(0), 8 * kMiB, *low_, 0));
    ASSERT_TRUE(memory_.AddRam(GuestAddress(4 * kGiB + kPageSize), 4 * kMiB, *high_, 0));
  }
  static std::uint64_t Sum(const Json& entries, const char* member) {
    std::uint64_t sum = 0;
    for (const Json& entry : entries) sum += entry.at(member).get<std::uint64_t>();
    return sum;
  }

  std::unique_ptr<RamBlock> low_, high_;
  AddressSpace memory_{nullptr};
};

TEST_F(MemoryMapTest, ACellIsAPowerOfTwoAndAPageAtLeast) {
  const struct {
    std::uint64_t size, cells, cell;
  } cases[] = {{12 * kMiB, 12, kMiB},    {12 * kMiB, 11, 2 * kMiB}, {12 * kMiB, 1, 16 * kMiB},
               {kMiB, 65536, kPageSize}, {0, 1, kPageSize},         {3 * kGiB, 1024, 4 * kMiB}};
  for (const auto& c : cases) EXPECT_EQ(MapCellSize(c.size, c.cells), c.cell);
}

TEST_F(MemoryMapTest, CellsCoverTheRamWithoutGapsAndOverlaps) {
  for (const std::uint64_t cells : {1U, 3U, 12U, 1000U, 65536U}) {
    const auto map = MapMemory(memory_, cells);
    ASSERT_TRUE(map) << map.error().ToString();
    EXPECT_EQ(Sum((*map)["cells"], "size"), 12 * kMiB);
    EXPECT_LE((*map)["cells"].size(), cells + 3);
    std::uint64_t end = 0;
    for (const Json& cell : (*map)["cells"]) {
      EXPECT_GE(cell["gpa"].get<std::uint64_t>(), end);
      end = cell["gpa"].get<std::uint64_t>() + cell["size"].get<std::uint64_t>();
    }
    EXPECT_EQ(end, 4 * kGiB + kPageSize + 4 * kMiB);
  }
}

TEST_F(MemoryMapTest, WhatIsTouchedIsAllocatedWhereItIs) {
  ASSERT_TRUE(memory_.Fill(GuestAddress(2 * kMiB), kMiB, std::byte{1}));
  ASSERT_TRUE(memory_.Fill(GuestAddress(4 * kGiB + kPageSize), kPageSize, std::byte{1}));
  const auto map = MapMemory(memory_, 12);
  ASSERT_TRUE(map);
  EXPECT_EQ((*map)["sampled"], false);
  for (const Json& cell : (*map)["cells"]) {
    const std::uint64_t gpa = cell["gpa"];
    const std::uint64_t expected = gpa == 2 * kMiB               ? kMiB
                                   : gpa == 4 * kGiB + kPageSize ? kPageSize
                                                                 : 0;
    EXPECT_EQ(cell["allocated"], expected) << gpa;
    EXPECT_EQ(Json::array({cell["nodes"]}).size(), 1U);
    std::uint64_t placed = 0;
    for (const Json& bytes : cell["nodes"]) placed += bytes.get<std::uint64_t>();
    EXPECT_EQ(placed, expected);
  }
  ASSERT_EQ((*map)["backends"].size(), 2U);
  EXPECT_EQ((*map)["backends"][0]["id"], "high");
  EXPECT_EQ((*map)["backends"][0]["allocated"], kPageSize);
  EXPECT_EQ((*map)["backends"][1]["allocated"], kMiB);
}

TEST_F(MemoryMapTest, AskingAllocatesNothing) {
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(MapMemory(memory_, 1000));
  EXPECT_EQ(QueryPlacement(*low_)->allocated, 0U);
  EXPECT_EQ(QueryPlacement(*high_)->allocated, 0U);
}

TEST_F(MemoryMapTest, LargeMemoryIsSampledAndNeverOvercounted) {
  ASSERT_TRUE(memory_.Fill(GuestAddress(0), 4 * kMiB, std::byte{1}));
  for (const std::uint64_t pages : {1U, 100U, 1000U, 3071U}) {
    const auto map = MapMemory(memory_, 6, pages);
    ASSERT_TRUE(map);
    EXPECT_EQ((*map)["sampled"], true) << pages;
    EXPECT_EQ(Sum((*map)["cells"], "allocated"), 4 * kMiB) << pages;
    for (const Json& cell : (*map)["cells"])
      EXPECT_LE(cell["allocated"].get<std::uint64_t>(), cell["size"].get<std::uint64_t>());
  }
  EXPECT_EQ((*MapMemory(memory_, 6, 3072))["sampled"], false);
}

}  // namespace
}  // namespace holdfast::control
