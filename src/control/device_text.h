// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "machine/device_tree.h"

namespace holdfast::devices::pci {
class PciBus;
}

namespace holdfast::control {

/// What QEMU calls a PCI class, base and sub-class; empty: it has no name for it.
std::string_view PciClassText(std::uint32_t code) noexcept;

/// A bus and all that is on it, as `info qtree` shows them: devices with their properties, PCI
/// functions with identity and BARs, and the buses behind them.
/// @param children  devices on the buses of functions
/// @param indent  spaces before each line
std::string FormatDeviceBus(const devices::pci::PciBus& bus,
                            std::span<const machine::DeviceTree::Child> children, unsigned indent);

}  // namespace holdfast::control
