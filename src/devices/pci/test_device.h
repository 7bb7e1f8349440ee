// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "devices/device_model.h"

namespace holdfast::devices::pci {

/// `pci-testdev`: registers to read and write and interrupts to ask for, for tests of what lies
/// between a guest and a device. It has QEMU's name and identity; its registers are Holdfast's own
/// (docs/pci.md).
extern const DeviceModel kPciTestdev;

/// Its registers, 4 bytes each, the same in BAR 0 (memory) and BAR 1 (I/O).
namespace testdev {
inline constexpr std::uint32_t kMagicValue = 0x48465443;
inline constexpr std::uint64_t kMagic = 0x00;    ///< reads kMagicValue
inline constexpr std::uint64_t kScratch = 0x04;  ///< keeps what is written
/// Writing N sends MSI-X vector N, or raises INTA# where MSI-X is off; reads how often it did.
inline constexpr std::uint64_t kInterrupt = 0x08;
inline constexpr std::uint64_t kAcknowledge = 0x0c;  ///< a write lowers INTA#
inline constexpr std::uint64_t kDoorbell = 0x10;  ///< counts writes, through an ioeventfd in BAR 0
inline constexpr unsigned kVectors = 2;
}  // namespace testdev

}  // namespace holdfast::devices::pci
