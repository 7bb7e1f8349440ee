// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/address_space.h>
#include <holdfast/page_bitmap.h>
#include <holdfast/ram_block.h>

#include <utility>
#include <vector>

namespace holdfast {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;

using Pair64 = std::pair<std::uint64_t, std::uint64_t>;

std::vector<Pair64> Runs(const PageBitmap& bitmap) {
  std::vector<Pair64> runs;
  bitmap.ForEachRun([&](const PageBitmap::Run& run) { runs.emplace_back(run.first, run.count); });
  return runs;
}

TEST(PageBitmap, SetsRangesAcrossWordsAndFindsThemAsRuns) {
  PageBitmap bitmap(200 * kPageSize);
  EXPECT_THAT(Runs(bitmap), IsEmpty());
  bitmap.Set(0, 1);
  bitmap.Set(63, 2);
  bitmap.Set(70, 128);
  EXPECT_EQ(bitmap.count(), 131U);
  EXPECT_THAT(Runs(bitmap), ElementsAre(Pair(0, 1), Pair(63, 2), Pair(70, 128)));
  EXPECT_TRUE(bitmap.Test(64));
  EXPECT_FALSE(bitmap.Test(65));
  bitmap.Clear(64, 64);
  EXPECT_THAT(Runs(bitmap), ElementsAre(Pair(0, 1), Pair(63, 1), Pair(128, 70)));
  EXPECT_EQ(bitmap.NextRun(129, 5)->count, 5U);
}

TEST(PageBitmap, TakesNoNoticeOfWhatLiesBeyondTheEnd) {
  PageBitmap bitmap(70 * kPageSize);
  bitmap.Set(69, 1000);
  bitmap.Set(70, 1);
  bitmap.Set(~0ULL, 1);
  bitmap.MergeWord(64, ~0ULL);
  bitmap.MergeWord(128, ~0ULL);
  EXPECT_THAT(Runs(bitmap), ElementsAre(Pair(64, 6)));
  EXPECT_FALSE(bitmap.Test(70));
  bitmap.SetAll();
  EXPECT_EQ(bitmap.count(), 70U);
}

TEST(PageBitmap, MergesAWordAtAnyPage) {
  PageBitmap bitmap(130 * kPageSize);
  bitmap.MergeWord(0, 1);
  bitmap.MergeWord(62, 0b10111);
  bitmap.MergeWord(129, 0b11);
  EXPECT_THAT(Runs(bitmap), ElementsAre(Pair(0, 1), Pair(62, 3), Pair(66, 1), Pair(129, 1)));
}

TEST(PageBitmap, MergingCountsWhatIsNew) {
  PageBitmap one(128 * kPageSize);
  PageBitmap two(128 * kPageSize);
  one.Set(0, 10);
  two.Set(5, 10);
  EXPECT_EQ(one.Merge(two), 5U);
  EXPECT_EQ(one.Merge(two), 0U);
  EXPECT_THAT(Runs(one), ElementsAre(Pair(0, 15)));
}

TEST(DirtyPages, HasEachBlockOnceHoweverManyRegionsItHas) {
  const auto one = RamBlock::CreateMemfd("one", 8 * kPageSize);
  const auto two = RamBlock::CreateMemfd("two", 4 * kPageSize);
  ASSERT_TRUE(one && two);
  AddressSpace memory(nullptr);
  ASSERT_TRUE(memory.AddRam(GuestAddress(0), 4 * kPageSize, **one, 0));
  ASSERT_TRUE(memory.AddRam(GuestAddress(kMiB), 4 * kPageSize, **two, 0));
  ASSERT_TRUE(memory.AddRam(GuestAddress(kGiB), 4 * kPageSize, **one, 4 * kPageSize));
  DirtyPages pages(memory);
  ASSERT_EQ(pages.blocks().size(), 2U);
  EXPECT_EQ(pages.Find(**one)->pages(), 8U);
  EXPECT_EQ(pages.Find(**two)->pages(), 4U);
  pages.SetAll();
  EXPECT_EQ(pages.count(), 12U);
}

}  // namespace
}  // namespace holdfast
