// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machine/acpi/table_writer.h"
#include "machine/acpi/tables.h"

namespace holdfast::machine::acpi {

/// The DSDT: soft-off state and the devices that no bus would find. CPUs are left to the MADT:
/// processor devices would only carry power states, which a guest has not.
/// @param generation_id  where vmgenid's 16 bytes are, if there are any
Bytes BuildDsdt(const AcpiConfig& config, std::uint64_t generation_id);

}  // namespace holdfast::machine::acpi
