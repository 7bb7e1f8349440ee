// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <holdfast/guest_address.h>

#include "devices/pci/pci_host.h"
#include "machine/boot/layout.h"

namespace holdfast::machine {

/// Where PCI BARs may lie, as on QEMU's q35: 32-bit ones from behind ECAM to below the interrupt
/// controllers, ports from 0x1000 up, 64-bit ones above all RAM.
/// @param ram_end  one past the highest RAM address
/// @param guest_phys_bits  physical address bits the guest's CPUs have
devices::pci::Windows PlanPci(std::uint64_t ram_end, unsigned guest_phys_bits) noexcept;

}  // namespace holdfast::machine
