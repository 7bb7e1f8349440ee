// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/guest_address.h>

#include "devices/pci/pci_host.h"
#include "machine/boot/layout.h"
#include "machine/boot/ram_layout.h"
#include "machine/numa.h"

namespace holdfast::machine::acpi {

/// What the tables tell a guest about its machine.
struct AcpiConfig {
  /// The APIC id of each possible CPU (maxcpus), its ACPI processor UID being its index. At most
  /// kMaxCpus; ids from 255 up are told as x2APIC ids.
  std::vector<std::uint32_t> apic_ids;
  unsigned enabled_cpus = 1;           ///< the first so many are there; the rest may come later
  std::array<bool, 4> serial_ports{};  ///< COM1 to COM4
  std::optional<std::uint16_t> pvpanic_port;
  /// Where PCI BARs may lie.
  devices::pci::Windows pci;
  /// What vmgenid tells, as firmware stores it.
  std::optional<std::array<std::uint8_t, 16>> vm_generation_id;
  /// Bytes of boot/layout.h's kAcpiArea, from its start, that the tables may take up; the SMBIOS
  /// tables are behind them.
  std::uint64_t room = boot::kAcpiArea.size;
  /// Without nodes there are no SRAT, SLIT and HMAT.
  NumaConfig numa;
  /// RAM by node: RamPiece::block is the node's id. Used only with nodes.
  std::vector<boot::RamPiece> memory;
};

/// The tables in one block. They hold addresses, so they belong exactly there.
struct AcpiTables {
  GuestAddress address;          ///< where `bytes` go, inside boot/layout.h's kAcpiArea
  std::vector<std::byte> bytes;  ///< RSDP first
  GuestAddress rsdp;             ///< for the kernel's boot information
  GuestAddress generation_id;    ///< where vmgenid's number is; 0: there is none
};

/// Builds RSDP, XSDT, FADT, FACS, MADT and DSDT; with NUMA nodes SRAT too, with distances given
/// SLIT, with hmat HMAT. Spec: ACPI 6.5, chapter 5.
/// @return kInvalidArgument if there are more hmat-lb values than the area has room for; the
///         largest number of everything else fits.
Result<AcpiTables> BuildAcpi(const AcpiConfig& config);

}  // namespace holdfast::machine::acpi
