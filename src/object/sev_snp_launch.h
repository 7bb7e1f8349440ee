// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>

#include <holdfast/address_space.h>
#include <holdfast/error.h>
#include <holdfast/guest_address.h>
#include <holdfast/units.h>

#include "kvm/sev_abi.h"
#include "kvm/sev_commands.h"
#include "object/confidential_guest.h"

namespace holdfast::object {

/// Pages in guest RAM below 1 MiB that belong to an SNP launch: nothing that loads a guest puts
/// anything there, and Linux leaves the first MiB alone.
inline constexpr GuestAddress kSnpSecretsPage{0xa000};
inline constexpr GuestAddress kSnpCpuidPage{0xb000};
inline constexpr GuestAddress kSnpBlobPage{0xc000};  ///< tells Linux where the other two are

/// Where the encryption bit of page tables is, and what encryption takes of addresses.
struct SnpAddressBits {
  unsigned cbitpos = 0;
  unsigned reduced_phys_bits = 0;
};

/// The CPUID page of a guest whose first vCPU has these entries (SEV-SNP firmware ABI, CPUID
/// page). Bits that the firmware never lets a guest have are left out of it; what a guest must know
/// of its encryption (0x8000001f) is in it.
/// @return kUnsupported for more entries than a page holds
Result<kvm::abi::SnpCpuidPage> MakeSnpCpuidPage(std::span<const kvm_cpuid_entry2> entries,
                                                const SnpAddressBits& bits);

/// What differs in two CPUID pages, in a sentence for each entry, joined: the guest's and what the
/// firmware left of it when it refused it. Empty: nothing.
std::string DescribeCpuidMismatch(const kvm::abi::SnpCpuidPage& given,
                                  const kvm::abi::SnpCpuidPage& wanted);

/// Makes a loaded Linux bzImage ready to start encrypted: the page tables of its first vCPU get the
/// encryption bit, and its boot parameters a pointer to the CPUID and secrets pages
/// (Documentation/arch/x86/boot.rst, setup_data SETUP_CC_BLOB).
/// @return kUnsupported for a guest that is no bzImage; kMalformed for page tables elsewhere
Status PrepareSnpLinux(const AddressSpace& memory, const kvm::Vcpu& first, unsigned cbitpos);

/// Gives all of the guest's RAM to the firmware, in the order of the addresses: pages with contents
/// measured, zero ones as such, and the two pages above. In place, or from a copy.
/// @return the failed command, or what MakeLaunchPrivate says
Status LaunchSnpMemory(const kvm::SnpCommands& commands, const ConfidentialGuest::Guest& guest,
                       const kvm::abi::SnpCpuidPage& cpuid, bool in_place);

}  // namespace holdfast::object
