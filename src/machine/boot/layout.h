// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include <holdfast/guest_address.h>
#include <holdfast/units.h>

namespace holdfast::machine::boot {

/// A fixed piece of guest physical memory, most of them in the first MiB.
struct LowRange {
  GuestAddress base;
  std::uint64_t size;  // bytes
  constexpr std::uint64_t end() const noexcept { return base.value() + size; }
};

// What the loaders put where. Everything lies in conventional memory, which a kernel leaves alone
// until it has copied what it needs, and clear of page 0, which real-mode trampolines use.
inline constexpr LowRange kGdt{GuestAddress(0x1000), kPageSize};
inline constexpr LowRange kPageTables{GuestAddress(0x2000), 6 * kPageSize};  // PML4, PDPT, 4 PDs
inline constexpr LowRange kZeroPage{GuestAddress(0x8000), kPageSize};
inline constexpr LowRange kStartInfo{GuestAddress(0x9000), kPageSize};        // PVH, with its lists
inline constexpr LowRange kLaunchPages{GuestAddress(0xa000), 3 * kPageSize};  // of SEV-SNP
inline constexpr LowRange kCmdline{GuestAddress(0x20000), 64 * kKiB};         // with its final zero

/// Conventional memory ends where a PC's extended BIOS data area starts.
inline constexpr std::uint64_t kEbdaStart = 0x9fc00;
inline constexpr std::uint64_t kVideoMemoryStart = 0xa0000;
/// ACPI tables, and at its end SMBIOS. They lie in the BIOS area rather than at the top of low RAM:
/// the area exists with every RAM size, 255 CPUs in 128 nodes fill a third of it, no kernel uses it
/// as RAM anyway (so reclaiming it would gain nothing), and an RSDP here is found even by a kernel
/// that scans for it.
inline constexpr LowRange kAcpiArea{GuestAddress(0xe0000), 128 * kKiB};
/// The SMBIOS tables end where that area ends, and take up at most so much.
inline constexpr std::uint64_t kSmbiosMost = 64 * kKiB;
inline constexpr std::uint64_t kBiosAreaStart = 0xe0000;
/// PCI configuration space as memory: 256 buses, where QEMU's q35 has it.
inline constexpr LowRange kEcam{GuestAddress(0xb0000000), 256 * kMiB};
/// Kernels are loaded from here up.
inline constexpr std::uint64_t kHighMemoryStart = kMiB;

namespace layout_detail {
consteval bool LowRangesAreApart() {
  constexpr std::array kAll{kGdt, kPageTables, kZeroPage, kStartInfo, kLaunchPages, kCmdline};
  for (std::size_t i = 0; i < kAll.size(); ++i) {
    if (kAll[i].base.value() < kPageSize || kAll[i].end() > kEbdaStart) return false;
    for (std::size_t j = 0; j < i; ++j)
      if (kAll[i].base.value() < kAll[j].end() && kAll[j].base.value() < kAll[i].end())
        return false;
  }
  return true;
}
}  // namespace layout_detail
static_assert(layout_detail::LowRangesAreApart());
static_assert(kAcpiArea.base.value() >= kBiosAreaStart && kAcpiArea.end() <= kHighMemoryStart);

}  // namespace holdfast::machine::boot
