// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machine/acpi/table_writer.h"
#include "machine/acpi/tables.h"

namespace holdfast::machine::acpi {

/// The DSDT: soft-off state and the devices that no bus would find. CPUs are left to the MADT:
/// processor devices would only carry power states, which a guest has not.
Bytes BuildDsdt(const AcpiConfig& config);

}  // namespace holdfast::machine::acpi
