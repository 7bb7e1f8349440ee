// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "devices/pci/pci_host.h"
#include "machine/acpi/aml.h"

namespace holdfast::machine::acpi {

/// The host bridge PCI0 with its windows, its interrupt wiring and what the kernel may control,
/// and the device that reserves configuration space.
/// Spec: PCI Firmware 3.2, chapter 4; ACPI 6.5, 6.2.11 (_OSC) and 6.2.13 (_PRT).
aml::Term PciRoot(const devices::pci::Windows& windows);

}  // namespace holdfast::machine::acpi
