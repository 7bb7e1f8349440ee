# SPDX-License-Identifier: Apache-2.0
# ACPI tables. Paths from src/machine.
set(MACHINE_ACPI_SOURCES
  acpi/aml.cc
  acpi/dsdt.cc
  acpi/hmat.cc
  acpi/pci_root.cc
  acpi/slit.cc
  acpi/srat.cc
  acpi/table_writer.cc
  acpi/tables.cc)
set(MACHINE_ACPI_TESTS
  acpi/aml_test.cc
  acpi/numa_tables_test.cc
  acpi/tables_test.cc
  acpi/test_tables.cc)
