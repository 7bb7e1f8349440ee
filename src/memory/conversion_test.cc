// SPDX-License-Identifier: Apache-2.0
// The contract of BlockConversion, with an engine that records and fails on command. What engines
// do with real memory is tested with KVM (tests/kvm/conversion_test.cc).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/conversion.h>
#include <holdfast/units.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "memory/recording_engine.h"

namespace holdfast {
namespace {

using enum MemoryAttribute;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::uint64_t kPages = 64;

class BlockConversionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto engine = std::make_unique<RecordingEngine>();
    engine_ = engine.get();
    auto block = BlockConversion::Create(kPages * kPageSize, std::move(engine), kShared);
    ASSERT_TRUE(block.has_value()) << block.error().ToString();
    block_ = *std::move(block);
  }
  Result<ConversionOutcome> Convert(std::uint64_t page, std::uint64_t count, MemoryAttribute to) {
    return block_->Convert({.offset = page * kPageSize, .size = count * kPageSize, .to = to});
  }
  std::vector<PageAttributes::Range> Ranges() const {
    return block_->attributes().Ranges(0, kPages);
  }

  RecordingEngine* engine_ = nullptr;  // block_'s
  std::unique_ptr<BlockConversion> block_;
};

TEST_F(BlockConversionTest, ChecksARequestInTheOrderOfTheContract) {
  constexpr std::uint64_t kEnd = kPages * kPageSize;
  std::array<std::uint64_t, 11> dirty{};
  dirty.back() = 1;
  // Each row breaks its own rule and all that are checked later.
  const struct {
    ConversionRequest request;
    const char* why;
  } cases[] = {
      {{.offset = 1, .size = 0, .flags = 1, .reserved = dirty}, "flags"},
      {{.offset = 1, .size = 0, .reserved = dirty}, "reserved"},
      {{.offset = 1, .size = 0}, "aligned"},
      {{.offset = 0, .size = 100}, "aligned"},
      {{.offset = 2 * kEnd, .size = 0}, "empty"},
      {{.offset = ~0ULL - kPageSize + 1, .size = 2 * kPageSize}, "wraps"},
      {{.offset = kEnd, .size = kPageSize}, "ends at"},
      {{.offset = 0, .size = kEnd + kPageSize}, "ends at"},
      {{.offset = kEnd - kPageSize, .size = 2 * kPageSize}, "ends at"},
  };
  for (const auto& c : cases) {
    const auto outcome = block_->Convert(c.request);
    ASSERT_FALSE(outcome.has_value()) << c.why;
    EXPECT_EQ(outcome.error().code(), Errc::kInvalidArgument);
    EXPECT_THAT(outcome.error().message(), HasSubstr(c.why));
  }
  EXPECT_THAT(engine_->calls(), IsEmpty());
}

TEST_F(BlockConversionTest, ARangeThatIsSoAlreadyReturnsAtOnceEvenIfItIsPinned) {
  ASSERT_TRUE(block_->TryPin(0, kPageSize));
  const auto outcome = Convert(0, 4, kShared);
  ASSERT_TRUE(outcome.has_value());
  EXPECT_EQ(outcome->changed_pages, 0U);
  EXPECT_FALSE(outcome->busy_offset);
  EXPECT_THAT(engine_->calls(), IsEmpty());
  block_->Unpin(0, kPageSize);
}

TEST_F(BlockConversionTest, ChangesExactlyThePagesAskedFor) {
  const auto outcome = Convert(3, 5, kPrivate);
  ASSERT_TRUE(outcome.has_value());
  EXPECT_EQ(outcome->changed_pages, 5U);
  EXPECT_THAT(Ranges(), ElementsAre(PageAttributes::Range{0, 3, kShared},
                                    PageAttributes::Range{3, 5, kPrivate},
                                    PageAttributes::Range{8, kPages - 8, kShared}));
  EXPECT_THAT(engine_->calls(), ElementsAre("private 3+5"));
  EXPECT_EQ(Convert(0, 6, kPrivate)->changed_pages, 3U) << "part of it was private already";
  EXPECT_EQ(Convert(0, kPages, kShared)->changed_pages, 8U);
}

TEST_F(BlockConversionTest, WhatIsPrivateOfFreedMemoryIsClosedAgain) {
  ASSERT_TRUE(Convert(3, 5, kPrivate).has_value());
  ASSERT_TRUE(Convert(20, 1, kPrivate).has_value());
  engine_->Forget();
  EXPECT_TRUE(block_->MemoryFreed(4 * kPageSize, 30 * kPageSize).has_value());
  EXPECT_THAT(engine_->calls(), ElementsAre("closed 4+4", "closed 20+1"));
  engine_->Forget();
  EXPECT_TRUE(block_->MemoryFreed(0, 3 * kPageSize).has_value());
  EXPECT_THAT(engine_->calls(), IsEmpty());
}

TEST_F(BlockConversionTest, APinnedPageRefusesAllOfItAndIsNamed) {
  ASSERT_TRUE(block_->TryPin(10 * kPageSize + 100, kPageSize));  // touches 10 and 11
  auto outcome = Convert(4, 20, kPrivate);
  ASSERT_TRUE(outcome.has_value());
  EXPECT_EQ(outcome->busy_offset, 10 * kPageSize);
  EXPECT_EQ(outcome->changed_pages, 0U);
  EXPECT_THAT(engine_->calls(), IsEmpty());
  EXPECT_EQ(block_->attributes().private_pages(), 0U);
  EXPECT_EQ(Convert(11, 5, kPrivate)->busy_offset, 11 * kPageSize);
  EXPECT_EQ(Convert(4, 6, kPrivate)->changed_pages, 6U) << "the pages before are free";
  EXPECT_EQ(Convert(12, 1, kPrivate)->changed_pages, 1U) << "and that behind";
  block_->Unpin(10 * kPageSize + 100, kPageSize);
  outcome = Convert(4, 20, kPrivate);
  EXPECT_FALSE(outcome->busy_offset) << "the retry";
  EXPECT_EQ(outcome->changed_pages, 13U);
}

TEST_F(BlockConversionTest, PrivatePagesCannotBePinned) {
  ASSERT_TRUE(Convert(5, 1, kPrivate).has_value());
  EXPECT_FALSE(block_->TryPin(5 * kPageSize, 1));
  EXPECT_FALSE(block_->TryPin(4 * kPageSize, kPageSize + 1));
  EXPECT_FALSE(block_->TryPin(0, kPages * kPageSize));
  EXPECT_TRUE(block_->TryPin(4 * kPageSize, kPageSize));
  block_->Unpin(4 * kPageSize, kPageSize);
  // What could not be pinned holds nothing.
  EXPECT_EQ(Convert(0, kPages, kPrivate)->changed_pages, kPages - 1);
}

TEST_F(BlockConversionTest, GoingSharedNeverWaitsForPins) {
  ASSERT_TRUE(Convert(0, 4, kPrivate).has_value());
  ASSERT_TRUE(block_->TryPin(4 * kPageSize, kPageSize));
  EXPECT_EQ(Convert(0, 8, kShared)->changed_pages, 4U);
  block_->Unpin(4 * kPageSize, kPageSize);
}

TEST_F(BlockConversionTest, AFailureHalfWayIsTakenBack) {
  ASSERT_TRUE(Convert(2, 2, kPrivate).has_value());
  engine_->Forget();
  engine_->FailNext();
  const auto outcome = Convert(0, 8, kPrivate);
  ASSERT_FALSE(outcome.has_value());
  EXPECT_EQ(outcome.error().os_errno(), ENOMEM);
  EXPECT_EQ(block_->attributes().private_pages(), 2U);
  // What was private before stays closed all along.
  EXPECT_THAT(engine_->calls(), ElementsAre("private 0+8", "shared 0+2", "shared 4+4"));
}

TEST_F(BlockConversionTest, ThePageTheKernelFindsBusyIsNamed) {
  engine_->BusyNext(3 * kPageSize);
  const auto outcome = Convert(0, 8, kPrivate);
  ASSERT_TRUE(outcome.has_value());
  EXPECT_EQ(outcome->busy_offset, 3 * kPageSize);
  EXPECT_EQ(block_->attributes().private_pages(), 0U);
  EXPECT_THAT(engine_->calls(), ElementsAre("private 0+8")) << "nothing had changed";
}

TEST_F(BlockConversionTest, SeveralPiecesAreConvertedTogetherOrNotAtAll) {
  auto other_engine = std::make_unique<RecordingEngine>();
  RecordingEngine& second = *other_engine;
  auto other = BlockConversion::Create(8 * kPageSize, std::move(other_engine), kShared);
  ASSERT_TRUE(other.has_value());
  const BlockConversion::Piece pieces[] = {{block_.get(), 0, 4 * kPageSize},
                                           {other->get(), kPageSize, 2 * kPageSize},
                                           {block_.get(), 8 * kPageSize, kPageSize}};
  ASSERT_TRUE((*other)->TryPin(2 * kPageSize, 1));
  auto outcome = BlockConversion::ConvertAll(pieces, kPrivate);
  ASSERT_TRUE(outcome.has_value());
  EXPECT_EQ(outcome->busy_offset, 2 * kPageSize);
  EXPECT_EQ(outcome->busy_piece, 1U);
  (*other)->Unpin(2 * kPageSize, 1);

  second.FailNext();
  EXPECT_FALSE(BlockConversion::ConvertAll(pieces, kPrivate).has_value());
  EXPECT_THAT(engine_->calls(), ElementsAre("private 0+4", "shared 0+4"));
  EXPECT_EQ(block_->attributes().private_pages() + (*other)->attributes().private_pages(), 0U);

  outcome = BlockConversion::ConvertAll(pieces, kPrivate);
  ASSERT_TRUE(outcome.has_value());
  EXPECT_EQ(outcome->changed_pages, 7U);
}

// One thread pins, looks and lets go; another converts. Were both to succeed at once, the device
// would work on a private page: the engine here notices.
TEST_F(BlockConversionTest, NoPageIsEverPinnedAndPrivateAtOnce) {
  std::atomic<bool> held{false};
  std::atomic<bool> both{false};
  engine_->OnApply([&](MemoryAttribute to) {
    if (to == kPrivate && held.load()) both.store(true);
  });
  std::atomic<bool> stop{false};
  std::thread device([&] {
    while (!stop.load()) {
      if (!block_->TryPin(7 * kPageSize, 2 * kPageSize)) continue;
      held.store(true);
      if (block_->attributes().At(7) != kShared) both.store(true);
      held.store(false);
      block_->Unpin(7 * kPageSize, 2 * kPageSize);
    }
  });
  std::uint64_t converted = 0;
  for (int i = 0; i < 20000; ++i) {
    const auto outcome = Convert(6, 4, i % 2 == 0 ? kPrivate : kShared);
    ASSERT_TRUE(outcome.has_value());
    converted += outcome->changed_pages;
  }
  stop.store(true);
  device.join();
  EXPECT_FALSE(both.load());
  EXPECT_GT(converted, 0U);
}

TEST(BlockConversionCreateTest, ABlockCanStartPrivate) {
  auto engine = std::make_unique<RecordingEngine>();
  RecordingEngine& recorder = *engine;
  const auto block = BlockConversion::Create(4 * kPageSize, std::move(engine), kPrivate);
  ASSERT_TRUE(block.has_value());
  EXPECT_EQ((*block)->attributes().private_pages(), 4U);
  EXPECT_THAT(recorder.calls(), ElementsAre("private 0+4"));
}

TEST(BlockConversionCreateTest, ABlockBeyondTheLimitIsRefusedWithTheRemedy) {
  const auto block =
      BlockConversion::Create(16 * kTiB, std::make_unique<RecordingEngine>(), kShared);
  ASSERT_FALSE(block.has_value());
  EXPECT_THAT(block.error().ToString(), HasSubstr("16 TiB"));
}

}  // namespace
}  // namespace holdfast
