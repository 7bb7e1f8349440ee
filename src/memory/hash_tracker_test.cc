// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>

#include <vector>

#include "memory/dirty_trackers.h"
#include "memory/recording_engine.h"

namespace holdfast {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::uint64_t kSize = 10 * kMiB;

class HashTrackerTest : public ::testing::Test {
 protected:
  HashTrackerTest() : block_(RamBlock::CreateMemfd("ram", kSize).value()) {
    EXPECT_TRUE(memory_.AddRam(GuestAddress(0), kSize, *block_, 0));
  }
  std::vector<std::uint64_t> Collect(DirtyTracker& tracker) {
    DirtyPages dirty(memory_);
    EXPECT_TRUE(tracker.Collect(dirty));
    std::vector<std::uint64_t> pages;
    for (std::uint64_t page = 0; page < kSize / kPageSize; ++page) {
      if (dirty.Find(*block_)->Test(page)) pages.push_back(page);
    }
    return pages;
  }
  std::byte& At(std::uint64_t page, std::uint64_t byte = 0) {
    return block_->host_view()[page * kPageSize + byte];
  }

  std::unique_ptr<RamBlock> block_;
  AddressSpace memory_{nullptr};
};

TEST_F(HashTrackerTest, ReportsEachChangedPageOnce) {
  At(5) = std::byte{1};
  const auto tracker = StartHashTracker(memory_, {.threads = 3});
  ASSERT_TRUE(tracker);
  EXPECT_EQ((*tracker)->method(), DirtyMethod::kHash);
  EXPECT_THAT(Collect(**tracker), IsEmpty());
  At(5, 4095) = std::byte{7};
  At(6) = std::byte{0};  // there now, but zero as before
  At(1023) = std::byte{1};
  At(2559, 8) = std::byte{1};
  EXPECT_THAT(Collect(**tracker), ElementsAre(5, 1023, 2559));
  EXPECT_THAT(Collect(**tracker), IsEmpty());
  ASSERT_TRUE(block_->Discard(5 * kPageSize, kPageSize));
  EXPECT_THAT(Collect(**tracker), ElementsAre(5));
  ASSERT_TRUE((*tracker)->Stop());
  At(5) = std::byte{1};
  EXPECT_THAT(Collect(**tracker), IsEmpty());
}

TEST_F(HashTrackerTest, ReportsEverythingAtFirstIfAsked) {
  const auto tracker = StartHashTracker(memory_, {.all_dirty_at_first = true});
  ASSERT_TRUE(tracker);
  At(9) = std::byte{1};
  EXPECT_EQ(Collect(**tracker).size(), kSize / kPageSize);
  EXPECT_THAT(Collect(**tracker), IsEmpty());
  At(9) = std::byte{2};
  EXPECT_THAT(Collect(**tracker), ElementsAre(9));
}

TEST_F(HashTrackerTest, DoesNotReadMemoryThatMayBePrivate) {
  ASSERT_TRUE(block_->EnableConversion(std::make_unique<RecordingEngine>()));
  const auto tracker = StartHashTracker(memory_, {});
  ASSERT_FALSE(tracker);
  EXPECT_EQ(tracker.error().code(), Errc::kInvalidArgument);
  EXPECT_THAT(tracker.error().ToString(), HasSubstr("'ram' cannot be compared"));
}

}  // namespace
}  // namespace holdfast
