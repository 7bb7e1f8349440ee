// SPDX-License-Identifier: Apache-2.0
#include "machine/acpi/numa_tables.h"

namespace holdfast::machine::acpi {

Bytes BuildSlit(const NumaConfig& numa) {
  TableWriter slit("SLIT", 1);
  slit.U64(numa.nodes.size()).Raw(numa.distances);
  return slit.Finish();
}

}  // namespace holdfast::machine::acpi
