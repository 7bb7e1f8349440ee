// SPDX-License-Identifier: Apache-2.0
#include "machine/boot/ram_layout.h"

#include <gtest/gtest.h>

#include <holdfast/units.h>

namespace holdfast::machine::boot {
namespace {

TEST(PlanRam, SplitsLikeQ35) {
  const struct {
    const char* why;
    std::uint64_t size;
    std::uint64_t low;
    std::uint64_t high;
  } kCases[] = {
      {"the smallest PC", kMiB, kMiB, 0},
      {"QEMU's default", 128 * kMiB, 128 * kMiB, 0},
      {"one page below the split", 0xb0000000 - kPageSize, 0xb0000000 - kPageSize, 0},
      {"exactly at the split", 0xb0000000, 2 * kGiB, 0x30000000},
      {"3.5 GiB", 3 * kGiB + 512 * kMiB, 2 * kGiB, kGiB + 512 * kMiB},
      {"6 GiB", 6 * kGiB, 2 * kGiB, 4 * kGiB},
      {"all of 1 TiB but the hole", kTiB - 2 * kGiB, 2 * kGiB, kTiB - 4 * kGiB},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    const auto plan = PlanRam(c.size, 48);
    ASSERT_TRUE(plan) << plan.error().ToString();
    ASSERT_EQ(plan->size(), c.high == 0 ? 1u : 2u);
    EXPECT_EQ(plan->front().base, GuestAddress(0));
    EXPECT_EQ(plan->front().size, c.low);
    EXPECT_EQ(plan->front().ram_offset, 0u);
    if (c.high == 0) continue;
    EXPECT_EQ(plan->back().base, GuestAddress(4 * kGiB));
    EXPECT_EQ(plan->back().size, c.high);
    EXPECT_EQ(plan->back().ram_offset, c.low);
  }
}

TEST(SplitRam, CutsRangesWhereBlocksEnd) {
  constexpr std::uint64_t kHigh = 4 * kGiB;
  struct Piece {
    std::size_t block;
    std::uint64_t base;
    std::uint64_t size;
    std::uint64_t offset;
    bool operator==(const Piece&) const = default;
  };
  const struct {
    const char* why;
    std::vector<std::uint64_t> blocks;
    std::vector<Piece> pieces;
  } kCases[] = {
      {"one block, not split", {kGiB}, {{0, 0, kGiB, 0}}},
      {"one block, split", {3 * kGiB}, {{0, 0, 2 * kGiB, 0}, {0, kHigh, kGiB, 2 * kGiB}}},
      {"two blocks below the split", {kGiB, kMiB}, {{0, 0, kGiB, 0}, {1, kGiB, kMiB, 0}}},
      {"a block ends at the hole",
       {2 * kGiB, 2 * kGiB},
       {{0, 0, 2 * kGiB, 0}, {1, kHigh, 2 * kGiB, 0}}},
      {"the second block lies on both sides of the hole",
       {kGiB, 2 * kGiB},
       {{0, 0, kGiB, 0}, {1, kGiB, kGiB, 0}, {1, kHigh, kGiB, kGiB}}},
      {"the first block lies on both sides of the hole",
       {3 * kGiB, kPageSize},
       {{0, 0, 2 * kGiB, 0}, {0, kHigh, kGiB, 2 * kGiB}, {1, kHigh + kGiB, kPageSize, 0}}},
      {"a block of one page ends one page before the hole",
       {2 * kGiB - 2 * kPageSize, kPageSize, kGiB},
       {{0, 0, 2 * kGiB - 2 * kPageSize, 0},
        {1, 2 * kGiB - 2 * kPageSize, kPageSize, 0},
        {2, 2 * kGiB - kPageSize, kPageSize, 0},
        {2, kHigh, kGiB - kPageSize, kPageSize}}},
      {"nodes without memory", {0, kMiB, 0, kMiB, 0}, {{1, 0, kMiB, 0}, {3, kMiB, kMiB, 0}}},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    std::uint64_t total = 0;
    for (const std::uint64_t size : c.blocks) total += size;
    const auto plan = PlanRam(total, 48);
    ASSERT_TRUE(plan) << plan.error().ToString();
    std::vector<Piece> pieces;
    for (const RamPiece& p : SplitRam(*plan, c.blocks))
      pieces.push_back({p.block, p.base.value(), p.size, p.block_offset});
    EXPECT_EQ(pieces, c.pieces);
  }
}

TEST(PlanRam, RefusesWhatDoesNotFitAndNamesSizeAndLimit) {
  const struct {
    const char* why;
    std::uint64_t size;
    unsigned bits;
    const char* names;
  } kCases[] = {
      {"one page over 1 TiB", kTiB - 2 * kGiB + kPageSize, 48, "1 TiB"},
      {"the largest number of pages", ~std::uint64_t{0} - kPageSize + 1, 48, "1 TiB"},
      {"a CPU with 36 bits", 64 * kGiB, 36, "64 GiB"},
      {"a CPU with 32 bits has no room above 4 GiB", 0xb0000000, 32, "4 GiB"},
      {"not a page multiple", kMiB + 1, 48, "1048577"},
      {"less than 1 MiB", 640 * kKiB, 48, "640 KiB"},
      {"nothing", 0, 48, "too small"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    const auto plan = PlanRam(c.size, c.bits);
    ASSERT_FALSE(plan);
    EXPECT_EQ(plan.error().code(), Errc::kInvalidArgument);
    EXPECT_NE(plan.error().message().find(c.names), std::string::npos) << plan.error().message();
  }
}

}  // namespace
}  // namespace holdfast::machine::boot
