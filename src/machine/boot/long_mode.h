// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <holdfast/address_space.h>
#include <holdfast/error.h>
#include <holdfast/guest_address.h>

namespace holdfast::machine::boot {

// Selectors in the GDT that WriteLongModeTables writes; code and data are what the Linux 64-bit
// boot protocol calls __BOOT_CS and __BOOT_DS.
inline constexpr std::uint16_t kCodeSelector = 0x10;
inline constexpr std::uint16_t kDataSelector = 0x18;
inline constexpr std::uint16_t kTssSelector = 0x20;

/// Register values for a vCPU that starts in 64-bit mode.
struct LongModeTables {
  GuestAddress page_tables;  ///< CR3
  GuestAddress gdt;          ///< GDTR base
  std::uint16_t gdt_limit;   ///< GDTR limit
};

/// Writes page tables that map the first 4 GiB one to one with 2 MiB pages, and a GDT with flat
/// 64-bit code, flat data and a TSS at 0, to their places in layout.h.
Result<LongModeTables> WriteLongModeTables(const AddressSpace& ram);

}  // namespace holdfast::machine::boot
