// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <holdfast/guest_address.h>

#include "machine/boot/ram_layout.h"

namespace holdfast::machine::boot {

/// Kinds of memory with the numbers that E820 and PVH's memory map share.
enum class MemoryType : std::uint32_t {
  kRam = 1,
  kReserved = 2,
  kAcpiReclaimable = 3,
  kAcpiNvs = 4,
};

/// One line of the memory map a guest is given.
struct MemoryMapEntry {
  GuestAddress base;
  std::uint64_t size;  // bytes
  MemoryType type;
  constexpr std::uint64_t end() const noexcept { return base.value() + size; }
  constexpr bool operator==(const MemoryMapEntry&) const noexcept = default;
};
using MemoryMap = std::vector<MemoryMapEntry>;

/// The map of a PC with `ram` (PlanRam's answer, the first range starting at 0): conventional
/// memory, EBDA, BIOS area with the ACPI tables, RAM from 1 MiB, PCI configuration space, the
/// window of the interrupt controllers, RAM from 4 GiB. Ascending, without overlaps.
MemoryMap BuildMemoryMap(std::span<const RamRange> ram);

/// The RAM entry that holds all of [base, base + size), null if none does.
const MemoryMapEntry* FindRam(std::span<const MemoryMapEntry> map, std::uint64_t base,
                              std::uint64_t size) noexcept;

}  // namespace holdfast::machine::boot
