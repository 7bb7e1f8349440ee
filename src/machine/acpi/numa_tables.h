// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "machine/acpi/table_writer.h"
#include "machine/acpi/tables.h"

namespace holdfast::machine::acpi {

/// The System Resource Affinity Table: which CPUs and which memory belong to which node (ACPI 6.5,
/// 5.2.16).
Bytes BuildSrat(const AcpiConfig& config);

/// The System Locality Information Table: the distances, which must have been given (5.2.17).
Bytes BuildSlit(const NumaConfig& numa);

/// The Heterogeneous Memory Attribute Table: initiators, latencies and bandwidths, memory side
/// caches (5.2.28).
Bytes BuildHmat(const NumaConfig& numa);

}  // namespace holdfast::machine::acpi
