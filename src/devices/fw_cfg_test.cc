// SPDX-License-Identifier: Apache-2.0
#include "devices/fw_cfg.h"

#include <gtest/gtest.h>
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <memory>
#include <string>

#include "devices/test_support.h"

namespace holdfast::devices {
namespace {

using testing::Bytes;
using testing::In;
using testing::Out;
using testing::Text;

constexpr std::uint64_t kData = 1;
constexpr std::uint64_t kDmaHigh = 4;
constexpr std::uint64_t kDmaLow = 8;
constexpr std::uint32_t kError = 1;
constexpr std::uint32_t kRead = 2;
constexpr std::uint32_t kSkip = 4;
constexpr std::uint32_t kSelect = 8;
constexpr std::uint32_t kWrite = 16;
constexpr std::uint64_t kRequest = 0x1000;
constexpr std::uint64_t kBuffer = 0x2000;

std::vector<std::byte> Contents(std::string_view text) {
  return {Bytes(text).begin(), Bytes(text).end()};
}

class FwCfgTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto block = RamBlock::CreateMemfd("ram", 64 * kKiB);
    ASSERT_TRUE(block) << block.error().ToString();
    block_ = *std::move(block);
    ASSERT_TRUE(memory_.AddRam(GuestAddress(0), 64 * kKiB, *block_, 0));
  }

  std::string ReadBytes(std::size_t count) {
    std::string text;
    for (std::size_t i = 0; i < count; ++i) text += static_cast<char>(In(device_, kData));
    return text;
  }

  // Runs a DMA request and returns the control word the device left.
  std::uint32_t Dma(std::uint32_t control, std::uint32_t length, std::uint64_t buffer) {
    std::vector<std::byte> words;
    const auto put = [&](std::uint64_t value, unsigned size) {
      for (unsigned i = size; i-- > 0;) words.push_back(static_cast<std::byte>(value >> (8 * i)));
    };
    put(control, 4);
    put(length, 4);
    put(buffer, 8);
    EXPECT_TRUE(memory_.Write(GuestAddress(kRequest), words));
    Out<4>(device_, kDmaHigh, 0);
    Out<4>(device_, kDmaLow, __builtin_bswap32(static_cast<std::uint32_t>(kRequest)));
    std::uint32_t left = 0;
    EXPECT_TRUE(memory_.Read(GuestAddress(kRequest), std::as_writable_bytes(std::span(&left, 1))));
    return __builtin_bswap32(left);
  }

  std::string Memory(std::uint64_t address, std::size_t size) {
    std::vector<std::byte> bytes(size);
    EXPECT_TRUE(memory_.Read(GuestAddress(address), bytes));
    return Text(bytes);
  }

  std::unique_ptr<RamBlock> block_;
  AddressSpace memory_{nullptr};
  FwCfg device_{memory_};
};

TEST_F(FwCfgTest, TellsSignatureAndThatThereIsDma) {
  Out<2>(device_, 0, 0);
  EXPECT_EQ(ReadBytes(4), "QEMU");
  EXPECT_EQ(ReadBytes(2), std::string(2, '\0')) << "behind the end";
  Out<2>(device_, 0, 1);
  EXPECT_EQ(ReadBytes(4), std::string("\3\0\0\0", 4));
  // Big-endian, so that the bytes are in the order of the text.
  EXPECT_EQ(In<4>(device_, kDmaHigh), 0x554d4551U);
  EXPECT_EQ(In<4>(device_, kDmaLow), 0x47464320U);
}

TEST_F(FwCfgTest, TheDirectoryListsFilesWithSizeAndNumber) {
  ASSERT_TRUE(device_.AddFile("opt/a", Contents("first")));
  ASSERT_TRUE(device_.AddFile("opt/b", Contents("")));
  Out<2>(device_, 0, 0x19);
  const std::string directory = ReadBytes(4 + 2 * 64);
  EXPECT_EQ(directory.substr(0, 4), std::string("\0\0\0\2", 4));
  EXPECT_EQ(directory.substr(4, 8), std::string("\0\0\0\5\0\x20\0\0", 8));
  EXPECT_STREQ(directory.c_str() + 12, "opt/a");
  EXPECT_EQ(directory.substr(68, 8), std::string("\0\0\0\0\0\x21\0\0", 8));
  EXPECT_STREQ(directory.c_str() + 76, "opt/b");
  Out<2>(device_, 0, 0x20);
  EXPECT_EQ(ReadBytes(6), std::string("first\0", 6));
}

TEST_F(FwCfgTest, DmaSelectsSkipsAndReadsWithZeroesBehindTheEnd) {
  ASSERT_TRUE(device_.AddFile("opt/a", Contents("0123456789")));
  ASSERT_TRUE(memory_.Fill(GuestAddress(kBuffer), 16, std::byte{0xee}));
  EXPECT_EQ(Dma(0x20U << 16 | kSelect | kRead, 4, kBuffer), 0U);
  EXPECT_EQ(Memory(kBuffer, 5), "0123\xee");
  EXPECT_EQ(Dma(kSkip, 3, 0), 0U);
  EXPECT_EQ(Dma(kRead, 6, kBuffer), 0U);
  EXPECT_EQ(Memory(kBuffer, 7), std::string("789\0\0\0\xee", 7));
  EXPECT_EQ(Dma(kSkip, 0xffffffff, 0), 0U);
  EXPECT_EQ(Dma(kRead, 1, kBuffer), 0U);
  EXPECT_EQ(Memory(kBuffer, 1), std::string(1, '\0'));
}

TEST_F(FwCfgTest, DmaThatCannotBeDoneIsAnErrorAndTouchesNothing) {
  ASSERT_TRUE(device_.AddFile("opt/a", Contents("0123456789")));
  const struct {
    const char* why;
    std::uint32_t control;
    std::uint32_t length;
    std::uint64_t buffer;
  } cases[] = {
      {"writing", 0x20U << 16 | kSelect | kWrite, 4, kBuffer},
      {"a buffer outside RAM", 0x20U << 16 | kSelect | kRead, 4, 1ULL << 40},
      {"a buffer that ends outside RAM", 0x20U << 16 | kSelect | kRead, 8, 64 * kKiB - 4},
      {"zeroes outside RAM", 0x7777U << 16 | kSelect | kRead, 0xffffffff, 0},
      {"a buffer that wraps", 0x7777U << 16 | kSelect | kRead, 0x100, ~0ULL},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.why);
    ASSERT_TRUE(memory_.Fill(GuestAddress(0x3000), 0xd000, std::byte{0x5a}));
    EXPECT_EQ(Dma(c.control, c.length, c.buffer), kError);
    EXPECT_EQ(Memory(64 * kKiB - 4, 4), "ZZZZ");
  }
  // A request that is not in RAM itself: nothing to answer, nobody hurt.
  Out<4>(device_, kDmaHigh, 0xffffffff);
  Out<4>(device_, kDmaLow, 0xffffffff);
}

TEST_F(FwCfgTest, UnknownNumbersAndOddAccessesReadAsNothing) {
  Out<2>(device_, 0, 0x1234);
  EXPECT_EQ(ReadBytes(2), std::string(2, '\0'));
  EXPECT_EQ(In<2>(device_, kData), 0xffffU);
  Out<1>(device_, 0, 0);  // no selector: that is 16 bits wide
  EXPECT_EQ(ReadBytes(1), std::string(1, '\0'));
}

TEST_F(FwCfgTest, ResetUnselects) {
  Out<2>(device_, 0, 0);
  EXPECT_EQ(ReadBytes(1), "Q");
  device_.Reset();
  EXPECT_EQ(ReadBytes(1), std::string(1, '\0'));
}

TEST_F(FwCfgTest, RefusesNamesItCannotHold) {
  EXPECT_TRUE(device_.AddFile(std::string(55, 'n'), {}));
  EXPECT_FALSE(device_.AddFile(std::string(56, 'n'), {}));
  EXPECT_FALSE(device_.AddFile("", {}));
  ASSERT_TRUE(device_.AddFile("opt/twice", {}));
  EXPECT_FALSE(device_.AddFile("opt/twice", {}));
  for (std::size_t i = 2; i < FwCfg::kMostFiles; ++i) {
    ASSERT_TRUE(device_.AddFile("opt/" + std::to_string(i), {}));
  }
  EXPECT_FALSE(device_.AddFile("opt/more", {}));
}

}  // namespace
}  // namespace holdfast::devices
