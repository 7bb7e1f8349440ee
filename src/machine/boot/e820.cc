// SPDX-License-Identifier: Apache-2.0
#include "machine/boot/e820.h"

#include <algorithm>

#include <holdfast/units.h>

#include "machine/boot/layout.h"

namespace holdfast::machine::boot {
namespace {

// I/O APIC (0xfec00000), room for an HPET, local APIC (0xfee00000) and, up to 0xff000000, the
// pages KVM needs on Intel for its TSS and identity map: nothing a kernel may give to a device.
constexpr std::uint64_t kPlatformWindowStart = 0xfec00000;
constexpr std::uint64_t kPlatformWindowEnd = 0xff000000;

}  // namespace

MemoryMap BuildMemoryMap(std::span<const RamRange> ram) {
  MemoryMap map;
  const auto add = [&map](std::uint64_t start, std::uint64_t end, MemoryType type) {
    if (start < end) map.push_back({GuestAddress(start), end - start, type});
  };
  bool window_added = false;
  const auto add_windows = [&] {
    add(kEcam.base.value(), kEcam.end(), MemoryType::kReserved);
    add(kPlatformWindowStart, kPlatformWindowEnd, MemoryType::kReserved);
    window_added = true;
  };
  for (const RamRange& range : ram) {
    std::uint64_t start = range.base.value();
    if (start == 0) {
      add(0, std::min(range.end(), kEbdaStart), MemoryType::kRam);
      // From 0xa0000 to the BIOS area nothing is listed, as on a PC: that is video memory and
      // option ROMs, for whose drivers a "reserved" would be a conflict.
      add(kEbdaStart, kVideoMemoryStart, MemoryType::kReserved);
      add(kBiosAreaStart, kHighMemoryStart, MemoryType::kReserved);
      start = kHighMemoryStart;
    }
    if (start >= kPlatformWindowEnd && !window_added) add_windows();
    add(start, range.end(), MemoryType::kRam);
  }
  if (!window_added) add_windows();
  return map;
}

const MemoryMapEntry* FindRam(std::span<const MemoryMapEntry> map, std::uint64_t base,
                              std::uint64_t size) noexcept {
  for (const MemoryMapEntry& entry : map) {
    if (entry.type == MemoryType::kRam && base >= entry.base.value() &&
        RangeFits(base - entry.base.value(), size, entry.size))
      return &entry;
  }
  return nullptr;
}

}  // namespace holdfast::machine::boot
