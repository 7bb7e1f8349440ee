// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "devices/device_model.h"

namespace holdfast::devices::pci {

/// `pcie-root-port`: a slot that a device may be put into and taken from while the guest runs, by
/// PCI Express native hotplug. Identity and properties are QEMU's.
extern const DeviceModel kPcieRootPort;

}  // namespace holdfast::devices::pci
