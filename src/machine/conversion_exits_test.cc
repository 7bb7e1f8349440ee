// SPDX-License-Identifier: Apache-2.0
#include "machine/conversion_exits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <cerrno>
#include <vector>

#include "memory/recording_engine.h"

namespace holdfast::machine {
namespace {

using ::testing::HasSubstr;
using ::testing::Optional;
using ::testing::SizeIs;

constexpr std::uint64_t kPages = 16;
constexpr std::uint64_t kPrivate = kvm::abi::kMapGpaRangeEncrypted;
constexpr std::uint64_t kShared = 0;

class ConversionExitsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto block = RamBlock::CreateMemfd("ram", kPages * kPageSize);
    ASSERT_TRUE(block.has_value());
    block_ = *std::move(block);
    ASSERT_TRUE(block_->EnableConversion(std::make_unique<RecordingEngine>()).has_value());
    ASSERT_TRUE(memory_.AddRam(GuestAddress(0), block_->size(), *block_, 0).has_value());
    exits_.emplace(converter_, [this](const ConversionExits::Refusal& refusal) {
      refusals_.push_back(refusal);
    });
  }
  // The hypercall's answer; what changed is in changed_.
  std::int64_t Call(std::uint64_t address, std::uint64_t pages, std::uint64_t flags,
                    std::uint64_t nr = kvm::abi::kHypercallMapGpaRange) {
    kvm_run run{};
    run.hypercall.nr = nr;
    run.hypercall.args[0] = address;
    run.hypercall.args[1] = pages;
    run.hypercall.args[2] = flags;
    run.hypercall.ret = 4711;
    changed_ = exits_->OnHypercall(run);
    return static_cast<std::int64_t>(run.hypercall.ret);
  }

  std::unique_ptr<RamBlock> block_;
  AddressSpace memory_{nullptr};
  GuestConverter converter_{memory_};
  std::optional<ConversionExits> exits_;
  std::optional<ConversionExits::Range> changed_;
  std::vector<ConversionExits::Refusal> refusals_;
};

TEST_F(ConversionExitsTest, AGuestConvertsARangeByHypercall) {
  EXPECT_EQ(Call(2 * kPageSize, 3, kPrivate), 0);
  EXPECT_THAT(changed_,
              Optional(ConversionExits::Range{GuestAddress(2 * kPageSize), 3 * kPageSize}));
  EXPECT_EQ(converter_.private_bytes(), 3 * kPageSize);
  EXPECT_EQ(Call(0, kPages, kPrivate | 1), 0) << "the page size in the low bits says nothing";
  EXPECT_EQ(converter_.private_bytes(), kPages * kPageSize);
  EXPECT_EQ(Call(0, kPages, kPrivate), 0);
  EXPECT_EQ(changed_, std::nullopt) << "nothing to map in";
  EXPECT_EQ(Call(0, kPages, kShared), 0);
  EXPECT_EQ(converter_.private_bytes(), 0U);
}

TEST_F(ConversionExitsTest, WhatCannotBeIsTheGuestsErrorAndOneReport) {
  const struct {
    std::uint64_t address, pages;
  } cases[] = {{0, kPages + 1}, {kPages * kPageSize, 1}, {~0ULL & ~4095ULL, 2}, {1, 1}, {0, 0},
               {0, ~0ULL},      {0, 1ULL << 52},         {0, (1ULL << 52) + 1}};
  for (const auto& c : cases)
    EXPECT_EQ(Call(c.address, c.pages, kPrivate), -EINVAL) << c.address << "+" << c.pages;
  EXPECT_EQ(converter_.private_bytes(), 0U);
  // One a second at most; the others are counted.
  ASSERT_THAT(refusals_, SizeIs(testing::AllOf(testing::Ge(1U), testing::Lt(std::size(cases)))));
  EXPECT_THAT(refusals_[0].reason, HasSubstr("not all RAM"));
  EXPECT_EQ(refusals_[0].size, (kPages + 1) * kPageSize);
}

TEST_F(ConversionExitsTest, OtherHypercallsAreUnknown) {
  EXPECT_EQ(Call(0, 1, kPrivate, 5), -1000);
  EXPECT_EQ(converter_.private_bytes(), 0U);
}

TEST_F(ConversionExitsTest, APageThatADeviceHoldsIsBusyAfterABoundedWait) {
  GuestIoVec held;
  ASSERT_TRUE(memory_.Pin(GuestAddress(kPageSize), 1, MemoryAccess::kWrite, held).has_value());
  EXPECT_EQ(Call(0, 2, kPrivate), -EAGAIN);
  EXPECT_GT(converter_.statistics().busy, 1U) << "it was asked for more than once";
  EXPECT_THAT(refusals_, SizeIs(0)) << "this is nobody's mistake";
  held = {};
  EXPECT_EQ(Call(0, 2, kPrivate), 0);
}

TEST_F(ConversionExitsTest, AnAccessOfTheOtherKindConverts) {
  auto changed = exits_->OnMemoryFault(
      {.flags = kvm::abi::kMemoryExitFlagPrivate, .gpa = kPageSize, .size = kPageSize});
  ASSERT_TRUE(changed.has_value());
  EXPECT_THAT(*changed, Optional(ConversionExits::Range{GuestAddress(kPageSize), kPageSize}));
  EXPECT_EQ(converter_.private_bytes(), kPageSize);
  changed = exits_->OnMemoryFault({.flags = 0, .gpa = kPageSize, .size = kPageSize});
  ASSERT_TRUE(changed.has_value());
  EXPECT_EQ(converter_.private_bytes(), 0U);
}

TEST_F(ConversionExitsTest, AFaultThatNoConversionMendsEndsTheGuestWithItsAddress) {
  const auto again = exits_->OnMemoryFault({.flags = 0, .gpa = 3 * kPageSize, .size = kPageSize});
  ASSERT_FALSE(again.has_value());
  EXPECT_THAT(again.error().message(), HasSubstr("0x3000"));
  const auto outside = exits_->OnMemoryFault(
      {.flags = kvm::abi::kMemoryExitFlagPrivate, .gpa = kGiB, .size = kPageSize});
  ASSERT_FALSE(outside.has_value());
  EXPECT_THAT(outside.error().message(), HasSubstr("not all RAM"));
}

}  // namespace
}  // namespace holdfast::machine
