// SPDX-License-Identifier: Apache-2.0
#include "machine/boot/long_mode.h"

#include <array>
#include <span>

#include <holdfast/units.h>

#include "machine/boot/layout.h"

namespace holdfast::machine::boot {
namespace {

constexpr std::uint64_t kPresentWritable = 0x3;
constexpr std::uint64_t kLargePage = 1 << 7;  // PS: this entry maps a page, not a table
constexpr std::uint64_t kLargePageSize = 2 * kMiB;
constexpr std::size_t kEntries = 512;  // of eight bytes in each table
constexpr std::size_t kDirectories = 4;

constexpr std::array<std::uint64_t, 6> kGdtEntries = {
    0,
    0,
    0x00af9b000000ffff,  // 0x10: code, 64 bits, execute and read, accessed
    0x00cf93000000ffff,  // 0x18: data, 4 GiB, read and write, accessed
    0x00008b0000000067,  // 0x20: busy 64-bit TSS at 0: a VM entry on Intel asks for one
    0,                   // its upper half
};
static_assert(sizeof(kGdtEntries) <= kGdt.size);
static_assert((2 + kDirectories) * kPageSize == kPageTables.size);

}  // namespace

Result<LongModeTables> WriteLongModeTables(const AddressSpace& ram) {
  std::array<std::uint64_t, kEntries> table{};
  const GuestAddress pml4 = kPageTables.base;
  const GuestAddress pdpt = pml4 + kPageSize;
  const GuestAddress first_directory = pdpt + kPageSize;

  table[0] = pdpt.value() | kPresentWritable;
  HF_TRY_STATUS(ram.Write(pml4, std::as_bytes(std::span(table))));
  for (std::size_t i = 0; i < kDirectories; ++i)
    table[i] = (first_directory.value() + i * kPageSize) | kPresentWritable;
  HF_TRY_STATUS(ram.Write(pdpt, std::as_bytes(std::span(table))));
  for (std::size_t i = 0; i < kDirectories; ++i) {
    for (std::size_t j = 0; j < kEntries; ++j)
      table[j] = ((i * kEntries + j) * kLargePageSize) | kPresentWritable | kLargePage;
    HF_TRY_STATUS(ram.Write(first_directory + i * kPageSize, std::as_bytes(std::span(table))));
  }
  HF_TRY_STATUS(ram.Write(kGdt.base, std::as_bytes(std::span(kGdtEntries))));
  return LongModeTables{pml4, kGdt.base, sizeof(kGdtEntries) - 1};
}

}  // namespace holdfast::machine::boot
