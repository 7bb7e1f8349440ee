// SPDX-License-Identifier: Apache-2.0
#include "machine/boot/long_mode.h"

#include <gtest/gtest.h>

#include "machine/boot/test_images.h"

namespace holdfast::machine::boot {
namespace {

constexpr std::uint64_t kAddressBits = 0x000ffffffffff000;

/// What the written tables make of a linear address, ~0 where they map nothing.
std::uint64_t Translate(const testing::TestRam& ram, GuestAddress pml4, std::uint64_t linear) {
  const auto entry = [&](std::uint64_t table, unsigned shift) {
    return ram.Get<std::uint64_t>(GuestAddress(table + ((linear >> shift) & 511) * 8));
  };
  std::uint64_t value = entry(pml4.value(), 39);
  if ((value & 1) == 0) return ~std::uint64_t{0};
  value = entry(value & kAddressBits, 30);
  if ((value & 1) == 0) return ~std::uint64_t{0};
  value = entry(value & kAddressBits, 21);
  if ((value & 0x83) != 0x83) return ~std::uint64_t{0};
  return (value & kAddressBits) + (linear & (2 * kMiB - 1));
}

TEST(LongMode, MapsTheFirstFourGibOneToOneAndNothingElse) {
  const testing::TestRam ram(2 * kMiB);
  const auto tables = WriteLongModeTables(ram.space());
  ASSERT_TRUE(tables) << tables.error().ToString();
  for (std::uint64_t address = 0; address < 4 * kGiB; address += 2 * kMiB)
    ASSERT_EQ(Translate(ram, tables->page_tables, address + 0x123), address + 0x123);
  for (const std::uint64_t address : {4 * kGiB, 512 * kGiB, std::uint64_t{0xffff800000000000}})
    EXPECT_EQ(Translate(ram, tables->page_tables, address), ~std::uint64_t{0}) << address;
}

TEST(LongMode, HasFlatSegmentsWhereTheBootProtocolWantsThem) {
  const testing::TestRam ram(2 * kMiB);
  const auto tables = WriteLongModeTables(ram.space());
  ASSERT_TRUE(tables);
  const struct {
    const char* why;
    std::uint16_t selector;
    std::uint64_t access;  // type, S, DPL and P
    bool long_mode;
  } kCases[] = {
      {"code: execute and read", kCodeSelector, 0x9b, true},
      {"data: read and write", kDataSelector, 0x93, false},
      {"task: busy 64-bit TSS", kTssSelector, 0x8b, false},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    ASSERT_LE(c.selector + 7, tables->gdt_limit);
    const auto descriptor = ram.Get<std::uint64_t>(tables->gdt + c.selector);
    EXPECT_EQ((descriptor >> 40) & 0xff, c.access);
    EXPECT_EQ((descriptor >> 53) & 1, c.long_mode ? 1u : 0u);
  }
  EXPECT_EQ(ram.Get<std::uint64_t>(tables->gdt), 0u);
}

}  // namespace
}  // namespace holdfast::machine::boot
