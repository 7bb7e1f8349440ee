// SPDX-License-Identifier: Apache-2.0
#include "memory/present_pages.h"

#include <gtest/gtest.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <utility>
#include <vector>

namespace holdfast {
namespace {

using Ranges = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

Ranges Present(const RamBlock& block, std::uint64_t first, std::uint64_t pages) {
  Ranges found;
  const Status status = ForEachPresent(block, first * kPageSize, pages * kPageSize,
                                       [&](std::uint64_t offset, std::uint64_t size) {
                                         found.emplace_back(offset / kPageSize, size / kPageSize);
                                         return true;
                                       });
  EXPECT_TRUE(status);
  return found;
}

TEST(PresentPages, AMemfdTellsWhatItHasAndIsNotMadeLarger) {
  const auto block = RamBlock::CreateMemfd("ram", 16 * kPageSize).value();
  EXPECT_EQ(Present(*block, 0, 16), Ranges{});
  for (const std::uint64_t page : {2U, 3U, 7U, 15U})
    block->host_view()[page * kPageSize] = std::byte{1};
  EXPECT_EQ(Present(*block, 0, 16), (Ranges{{2, 2}, {7, 1}, {15, 1}}));
  EXPECT_EQ(Present(*block, 3, 5), (Ranges{{3, 1}, {7, 1}}));
  EXPECT_EQ(Present(*block, 8, 7), Ranges{});
  ASSERT_TRUE(block->Discard(2 * kPageSize, kPageSize));
  EXPECT_EQ(Present(*block, 0, 16), (Ranges{{3, 1}, {7, 1}, {15, 1}}));
}

TEST(PresentPages, WhatCannotBeToldCountsAsPresent) {
  const auto block = RamBlock::CreateAnonymous("ram", 4 * kPageSize, {.shared = false}).value();
  EXPECT_EQ(Present(*block, 1, 2), (Ranges{{1, 2}}));
}

TEST(PresentPages, TheVisitorCanEndTheWalk) {
  const auto block = RamBlock::CreateMemfd("ram", 8 * kPageSize).value();
  for (const std::uint64_t page : {1U, 3U, 5U}) block->host_view()[page * kPageSize] = std::byte{1};
  int calls = 0;
  ASSERT_TRUE(ForEachPresent(*block, 0, block->size(),
                             [&](std::uint64_t, std::uint64_t) { return ++calls < 2; }));
  EXPECT_EQ(calls, 2);
}

}  // namespace
}  // namespace holdfast
