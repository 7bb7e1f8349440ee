// SPDX-License-Identifier: Apache-2.0
#include "machine/pci_layout.h"

#include <algorithm>

#include <holdfast/units.h>

#include "machine/boot/ram_layout.h"

namespace holdfast::machine {
namespace {

constexpr std::uint64_t kMemory32Start = 0xc0000000;
constexpr std::uint64_t kMemory32End = 0xfec00000;  // the I/O APIC
constexpr std::uint64_t kIoStart = 0x1000;
constexpr std::uint64_t kIoEnd = 0x10000;
constexpr std::uint64_t kMemory64Size = 32 * kGiB;  // QEMU's hole

}  // namespace

devices::pci::Windows PlanPci(std::uint64_t ram_end, unsigned guest_phys_bits) noexcept {
  static_assert(boot::kEcam.end() <= kMemory32Start);
  devices::pci::Windows windows{.io = {kIoStart, kIoEnd - kIoStart},
                                .memory32 = {kMemory32Start, kMemory32End - kMemory32Start},
                                .memory64 = {}};
  const std::uint64_t limit = 1ULL << std::min(guest_phys_bits, boot::kMaxAddressBits);
  const std::uint64_t base = AlignUp(std::max(ram_end, 4 * kGiB), kGiB);
  if (base < limit) windows.memory64 = {base, std::min(kMemory64Size, limit - base)};
  return windows;
}

}  // namespace holdfast::machine
