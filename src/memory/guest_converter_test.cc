// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/address_space.h>
#include <holdfast/guest_converter.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <array>
#include <numeric>
#include <thread>

#include "memory/recording_engine.h"

namespace holdfast {
namespace {

using enum MemoryAttribute;
using ::testing::HasSubstr;
using namespace std::chrono_literals;

constexpr std::uint64_t kHigh = 4 * kGiB;

std::unique_ptr<RamBlock> MakeBlock(const char* id, std::uint64_t pages, bool convertible = true) {
  auto block = RamBlock::CreateMemfd(id, pages * kPageSize);
  EXPECT_TRUE(block.has_value());
  if (convertible) {
    EXPECT_TRUE((*block)->EnableConversion(std::make_unique<RecordingEngine>()).has_value());
  }
  return *std::move(block);
}

// Two blocks side by side at 0, a hole, the rest of the second above 4 GiB, and behind it memory
// that is always shared.
class GuestConverterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Add(0, 4, *first_, 0);
    Add(4 * kPageSize, 4, *second_, 0);
    Add(kHigh, 4, *second_, 4);
    Add(kHigh + 4 * kPageSize, 4, *plain_, 0);
  }
  void Add(std::uint64_t base, std::uint64_t pages, RamBlock& block, std::uint64_t first) {
    ASSERT_TRUE(
        space_.AddRam(GuestAddress(base), pages * kPageSize, block, first * kPageSize).has_value());
  }
  auto Convert(std::uint64_t from, std::uint64_t size, MemoryAttribute to) {
    return converter_.Convert(GuestAddress(from), size, to);
  }
  std::string Map() const {
    std::string text;
    for (const auto& range : converter_.Ranges()) {
      text += fmt::format("{:#x}+{} {}, ", range.start.value(), range.size / kPageSize,
                          range.attribute == kPrivate ? "private" : "shared");
    }
    return text;
  }

  std::unique_ptr<RamBlock> first_ = MakeBlock("first", 4);
  std::unique_ptr<RamBlock> second_ = MakeBlock("second", 8);
  std::unique_ptr<RamBlock> plain_ = MakeBlock("plain", 4, false);
  AddressSpace space_{nullptr};
  GuestConverter converter_{space_};
};

TEST_F(GuestConverterTest, ConvertsAcrossBlocks) {
  const auto outcome = Convert(2 * kPageSize, 4 * kPageSize, kPrivate);
  ASSERT_TRUE(outcome.has_value()) << outcome.error().ToString();
  EXPECT_EQ(outcome->changed_pages, 4U);
  EXPECT_EQ(Map(), "0x0+2 shared, 0x2000+4 private, 0x6000+2 shared, 0x100000000+8 shared, ");
  EXPECT_EQ(converter_.private_bytes(), 4 * kPageSize);
}

TEST_F(GuestConverterTest, RefusesWhatCannotBeWithNothingChanged) {
  const struct {
    std::uint64_t from, size;
    const char* why;
  } cases[] = {
      {1, kPageSize, "page aligned"},
      {0, 5, "page aligned"},
      {0, 0, "empty"},
      {~0ULL - kPageSize + 1, 2 * kPageSize, "wraps"},
      {0, ~0ULL - kPageSize + 1, "always shared"},
      {0, 9 * kPageSize, "not all RAM"},
      {0xd0000000, kPageSize, "not all RAM"},
      {0, kHigh, "not all RAM"},
      {kHigh, 8 * kPageSize, "'plain' is always shared"},
  };
  for (const auto& c : cases) {
    const auto outcome = Convert(c.from, c.size, kPrivate);
    ASSERT_FALSE(outcome.has_value()) << c.why;
    EXPECT_EQ(outcome.error().code(), Errc::kInvalidArgument);
    EXPECT_THAT(outcome.error().message(), HasSubstr(c.why));
  }
  EXPECT_EQ(converter_.private_bytes(), 0U);
  EXPECT_EQ(converter_.statistics().refused, std::size(cases));
}

TEST_F(GuestConverterTest, WhatIsNotRamIsSharedAlready) {
  EXPECT_TRUE(Convert(0xd0000000, kPageSize, kShared).has_value());
  ASSERT_TRUE(Convert(kHigh, 4 * kPageSize, kPrivate).has_value());
  const auto outcome = Convert(0, kHigh + 8 * kPageSize, kShared);  // the whole of it, in one call
  ASSERT_TRUE(outcome.has_value());
  EXPECT_EQ(outcome->changed_pages, 4U);
}

TEST_F(GuestConverterTest, ABusyPageIsNamedByItsGuestAddress) {
  GuestIoVec held;
  ASSERT_TRUE(
      space_.Pin(GuestAddress(kHigh + kPageSize + 8), 16, MemoryAccess::kWrite, held).has_value());
  auto outcome = Convert(kHigh, 4 * kPageSize, kPrivate);
  ASSERT_TRUE(outcome.has_value());
  EXPECT_EQ(outcome->busy, GuestAddress(kHigh + kPageSize));
  EXPECT_EQ(converter_.statistics().busy, 1U);
  held = {};
  outcome = Convert(kHigh, 4 * kPageSize, kPrivate);
  EXPECT_EQ(outcome->changed_pages, 4U) << "the retry";
}

TEST_F(GuestConverterTest, PatienceOutlivesADevice) {
  GuestIoVec held;
  ASSERT_TRUE(space_.Pin(GuestAddress(0), 1, MemoryAccess::kWrite, held).has_value());
  auto outcome = converter_.ConvertPatiently(GuestAddress(0), kPageSize, kPrivate, 0ms);
  ASSERT_TRUE(outcome.has_value());
  EXPECT_TRUE(outcome->busy) << "no patience, and an end to it";
  const std::uint64_t tried = converter_.statistics().busy;
  std::thread device([&] {
    while (converter_.statistics().busy < tried + 3) std::this_thread::yield();
    held = {};
  });
  outcome = converter_.ConvertPatiently(GuestAddress(0), kPageSize, kPrivate, 60s);
  device.join();
  ASSERT_TRUE(outcome.has_value());
  EXPECT_EQ(outcome->changed_pages, 1U);
}

TEST_F(GuestConverterTest, CountsWhatItDid) {
  ASSERT_TRUE(Convert(0, 3 * kPageSize, kPrivate).has_value());
  ASSERT_TRUE(Convert(0, 3 * kPageSize, kPrivate).has_value());
  ASSERT_TRUE(Convert(0, kPageSize, kShared).has_value());
  const auto now = converter_.statistics();
  EXPECT_EQ(now.to_private, 2U);
  EXPECT_EQ(now.to_shared, 1U);
  EXPECT_EQ(now.private_pages, 3U);
  EXPECT_EQ(now.shared_pages, 1U);
  EXPECT_EQ(std::accumulate(now.time_us.begin(), now.time_us.end(), std::uint64_t{0}), 3U);
}

// ---- The one checked access (AddressSpace) ----------------------------------------------------

TEST_F(GuestConverterTest, EveryAccessToPrivateMemoryIsRefusedAsAWholeAndCounted) {
  ASSERT_TRUE(space_.Fill(GuestAddress(0), 8 * kPageSize, std::byte{0x11}).has_value());
  ASSERT_TRUE(Convert(3 * kPageSize, kPageSize, kPrivate).has_value());
  std::array<std::byte, 32> bytes{};
  const GuestAddress across(3 * kPageSize - 16);
  GuestIoVec vec;
  const Status answers[] = {
      space_.Read(across, bytes),
      space_.Write(across, bytes),
      space_.Fill(across, bytes.size(), std::byte{0}),
      space_.Pin(across, bytes.size(), MemoryAccess::kRead, vec),
      space_.ReadFile(-1, 0, across, bytes.size()),
  };
  for (const Status& answer : answers) {
    ASSERT_FALSE(answer.has_value());
    EXPECT_EQ(answer.error().code(), Errc::kPrivate) << answer.error().ToString();
    EXPECT_THAT(answer.error().message(), HasSubstr("0x2ff0 + 0x20 is private"));
  }
  EXPECT_EQ(space_.private_refusals(), std::size(answers));
  EXPECT_TRUE(vec.empty());
  EXPECT_EQ(first_->host_view()[3 * kPageSize - 1], std::byte{0x11}) << "the shared half";
  EXPECT_TRUE(space_.Read(GuestAddress(2 * kPageSize), bytes).has_value());
  // What was refused holds nothing.
  EXPECT_TRUE(Convert(0, 8 * kPageSize, kPrivate).has_value());
}

TEST_F(GuestConverterTest, GivingMemoryBackNeverChangesItsAttribute) {
  ASSERT_TRUE(Convert(0, 2 * kPageSize, kPrivate).has_value());
  ASSERT_TRUE(space_.Discard(GuestAddress(kPageSize), 2 * kPageSize).has_value());
  EXPECT_EQ(Map(), "0x0+2 private, 0x2000+6 shared, 0x100000000+8 shared, ");
}

TEST_F(GuestConverterTest, AHeldRangeIsLetGoWithItsHolder) {
  {
    GuestIoVec held;
    ASSERT_TRUE(space_.Pin(GuestAddress(0), 8 * kPageSize, MemoryAccess::kRead, held).has_value());
    GuestIoVec moved = std::move(held);
    EXPECT_EQ(Convert(0, kPageSize, kPrivate)->busy, GuestAddress(0));
    GuestIoVec other;
    ASSERT_TRUE(space_.Pin(GuestAddress(0), 1, MemoryAccess::kRead, other).has_value());
    moved = std::move(other);
    EXPECT_EQ(Convert(kPageSize, kPageSize, kPrivate)->changed_pages, 1U);
  }
  EXPECT_EQ(Convert(0, kPageSize, kPrivate)->changed_pages, 1U);
}

}  // namespace
}  // namespace holdfast
