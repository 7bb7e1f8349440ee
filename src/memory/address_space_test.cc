// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <numeric>

namespace holdfast {
namespace {

constexpr std::uint64_t kHigh = 4 * kGiB;

// Two pieces of one block, as a machine with RAM on both sides of the hole below 4 GiB.
class AddressSpaceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto block = RamBlock::CreateMemfd("ram", 8 * kPageSize);
    ASSERT_TRUE(block.has_value()) << block.error().ToString();
    block_ = *std::move(block);
    ASSERT_TRUE(space_.AddRam(GuestAddress(0), 3 * kPageSize, *block_, 0).has_value());
    ASSERT_TRUE(
        space_.AddRam(GuestAddress(kHigh), 5 * kPageSize, *block_, 3 * kPageSize).has_value());
  }
  std::byte HostByte(std::uint64_t offset) const { return block_->host_view()[offset]; }

  std::unique_ptr<RamBlock> block_;
  AddressSpace space_{nullptr};
};

TEST_F(AddressSpaceTest, RefusesRangesThatCannotBe) {
  const struct {
    const char* why;
    std::uint64_t base, size, offset;
  } cases[] = {
      {"empty", 0x100000, 0, 0},
      {"unaligned base", 0x100001, kPageSize, 0},
      {"unaligned size", 0x100000, 100, 0},
      {"unaligned offset", 0x100000, kPageSize, 8},
      {"past the block's end", 0x100000, kPageSize, 8 * kPageSize},
      {"longer than the block", 0x100000, 9 * kPageSize, 0},
      {"offset overflows", 0x100000, 2 * kPageSize, ~0ULL - kPageSize + 1},
      {"address wraps", ~0ULL - kPageSize + 1, 2 * kPageSize, 0},
      {"same place", 0, kPageSize, 0},
      {"tail overlaps", kHigh - kPageSize, 2 * kPageSize, 0},
      {"head overlaps", 2 * kPageSize, kPageSize, 0},
      {"inside", kHigh + kPageSize, kPageSize, 0},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.why);
    const Status status = space_.AddRam(GuestAddress(c.base), c.size, *block_, c.offset);
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().code(), Errc::kInvalidArgument);
    EXPECT_EQ(space_.regions().size(), 2U);
  }
}

TEST_F(AddressSpaceTest, WritesWhereTheBlockHoldsTheAddress) {
  const std::array bytes = {std::byte{1}, std::byte{2}, std::byte{3}};
  ASSERT_TRUE(space_.Write(GuestAddress(kHigh + 5), bytes).has_value());
  EXPECT_EQ(HostByte(3 * kPageSize + 5), std::byte{1});
  EXPECT_EQ(HostByte(3 * kPageSize + 7), std::byte{3});
  std::array<std::byte, 3> back{};
  ASSERT_TRUE(space_.Read(GuestAddress(kHigh + 5), back).has_value());
  EXPECT_EQ(back, bytes);
}

TEST_F(AddressSpaceTest, CrossesAdjacentRegions) {
  ASSERT_TRUE(space_.AddRam(GuestAddress(3 * kPageSize), kPageSize, *block_, 0).has_value());
  ASSERT_TRUE(space_.Fill(GuestAddress(3 * kPageSize - 2), 4, std::byte{0xee}).has_value());
  EXPECT_EQ(HostByte(3 * kPageSize - 1), std::byte{0xee});
  EXPECT_EQ(HostByte(1), std::byte{0xee});
  EXPECT_EQ(HostByte(2), std::byte{0});
}

TEST_F(AddressSpaceTest, RefusesAccessOutsideRamAndTouchesNothing) {
  const std::array<std::byte, 16> bytes = {std::byte{0xff}};
  for (const std::uint64_t address : std::initializer_list<std::uint64_t>{
           3 * kPageSize - 8, 3 * kPageSize, kHigh - 1, kHigh + 5 * kPageSize - 15, ~0ULL - 3}) {
    SCOPED_TRACE(address);
    const Status status = space_.Write(GuestAddress(address), bytes);
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().code(), Errc::kInvalidArgument);
  }
  for (const std::byte byte : block_->host_view()) ASSERT_EQ(byte, std::byte{0});
}

TEST_F(AddressSpaceTest, ReadsFilesIntoRamAndSaysWhenTheyEndEarly) {
  UniqueFd file(::memfd_create("file", MFD_CLOEXEC));
  std::array<unsigned char, 100> content{};
  std::iota(content.begin(), content.end(), 0);
  ASSERT_EQ(::write(file.get(), content.data(), content.size()), 100);
  ASSERT_TRUE(space_.ReadFile(file.get(), 10, GuestAddress(kHigh), 90).has_value());
  EXPECT_EQ(HostByte(3 * kPageSize), std::byte{10});
  EXPECT_EQ(HostByte(3 * kPageSize + 89), std::byte{99});
  const Status status = space_.ReadFile(file.get(), 10, GuestAddress(kHigh), 91);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code(), Errc::kMalformed);
}

TEST_F(AddressSpaceTest, KnowsItsEndAndSize) {
  EXPECT_EQ(space_.end(), GuestAddress(kHigh + 5 * kPageSize));
  EXPECT_EQ(space_.total_size(), 8 * kPageSize);
}

}  // namespace
}  // namespace holdfast
