// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/guest_address.h>

#include "machine/boot/ram_layout.h"
#include "machine/config.h"

namespace holdfast::machine::smbios {

/// What the tables tell of the machine besides the words of `-smbios`.
struct Facts {
  CpuTopology smp;
  std::span<const boot::RamRange> ram;
  std::uint64_t processor_id = 0;  ///< CPUID leaf 1: EDX above EAX
};

/// The tables in one block, the entry point at its end. They belong exactly there.
struct Tables {
  GuestAddress address;  ///< of the block, which ends where the BIOS area ends
  std::vector<std::byte> bytes;
};

/// Builds the structures and an SMBIOS 3 entry point, which Linux finds by its scan of
/// 0xf0000 to 0xfffff. Reads the files that `config` names. Spec: DMTF DSP0134 3.0.
/// @return the failed reading; kMalformed for a file that is no structure; kInvalidArgument for
///         tables that do not fit into 64 KiB
Result<Tables> Build(const SmbiosConfig& config, const Facts& facts);

}  // namespace holdfast::machine::smbios
