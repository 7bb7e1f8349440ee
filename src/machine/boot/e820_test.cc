// SPDX-License-Identifier: Apache-2.0
#include "machine/boot/e820.h"

#include <gtest/gtest.h>

#include <holdfast/units.h>

namespace holdfast::machine::boot {
namespace {

using enum MemoryType;

MemoryMap MapOf(std::uint64_t ram_size) {
  const auto plan = PlanRam(ram_size, 48);
  EXPECT_TRUE(plan);
  return BuildMemoryMap(*plan);
}

TEST(MemoryMap, DescribesAPcWithLowMemoryOnly) {
  const MemoryMap want = {
      {GuestAddress(0), 0x9fc00, kRam},
      {GuestAddress(0x9fc00), 0x400, kReserved},
      {GuestAddress(0xe0000), 0x20000, kReserved},
      {GuestAddress(0x100000), 255 * kMiB, kRam},
      {GuestAddress(0xb0000000), 0x10000000, kReserved},
      {GuestAddress(0xfec00000), 0x400000, kReserved},
  };
  EXPECT_EQ(MapOf(256 * kMiB), want);
}

TEST(MemoryMap, PutsTheRestAboveFourGib) {
  const MemoryMap map = MapOf(6 * kGiB);
  ASSERT_EQ(map.size(), 7u);
  EXPECT_EQ(map[3], (MemoryMapEntry{GuestAddress(kMiB), 2 * kGiB - kMiB, kRam}));
  EXPECT_EQ(map[4].type, kReserved);
  EXPECT_EQ(map[5].type, kReserved);
  EXPECT_EQ(map[6], (MemoryMapEntry{GuestAddress(4 * kGiB), 4 * kGiB, kRam}));
}

TEST(MemoryMap, IsAscendingAndApartForEverySize) {
  for (const std::uint64_t size :
       {kMiB, 2 * kMiB, std::uint64_t{0xaffff000}, std::uint64_t{0xb0000000}, kTiB - 2 * kGiB}) {
    SCOPED_TRACE(size);
    const MemoryMap map = MapOf(size);
    for (std::size_t i = 0; i < map.size(); ++i) {
      EXPECT_GT(map[i].size, 0u);
      if (i == 0) continue;
      EXPECT_GE(map[i].base.value(), map[i - 1].end());
    }
  }
}

TEST(MemoryMap, FindsRamOnlyForWholeRanges) {
  const MemoryMap map = MapOf(16 * kMiB);
  const struct {
    const char* why;
    std::uint64_t base;
    std::uint64_t size;
    bool found;
  } kCases[] = {
      {"inside", kMiB, kMiB, true},
      {"to the last byte", 15 * kMiB, kMiB, true},
      {"one byte over the end", 15 * kMiB, kMiB + 1, false},
      {"over the BIOS area", 0x90000, kMiB, false},
      {"reserved", 0xe0000, 16, false},
      {"wraps", 2 * kMiB, ~std::uint64_t{0}, false},
      {"beyond RAM", kGiB, 1, false},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    EXPECT_EQ(FindRam(map, c.base, c.size) != nullptr, c.found);
  }
}

}  // namespace
}  // namespace holdfast::machine::boot
