// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/guest_address.h>
#include <holdfast/vm.h>

#include "kvm/tdx_commands.h"
#include "object/confidential_guest.h"

namespace holdfast::object {

/// Where the vCPUs of a TD start (TDX module base specification, "Initial State of Guest GPRs").
inline constexpr GuestAddress kTdxResetVector{0xfffffff0};

/// The clock of a TD's APICs is 25 MHz (TDX module base specification, CPUID 0x15).
/// @return kUnsupported where KVM cannot be told
Status SetTdxClock(const kvm::Vm& vm);

/// Of what KVM can give a guest, the extended features that a TD may have. Any thread.
std::uint64_t TdxXfam(std::span<const kvm_cpuid_entry2> supported, const kvm::TdxLimits& limits);

/// Of what KVM can give a guest, the leaves and bits that are configured for a TD; the others are
/// the TDX module's. Guest physical addresses have 48 bits unless KVM says 52. Any thread.
std::vector<kvm_cpuid_entry2> TdxCpuid(std::span<const kvm_cpuid_entry2> supported,
                                       const kvm::TdxLimits& limits);

/// Makes the vCPUs, adds and measures what is loaded in the order of the addresses, and closes the
/// launch. Zero pages become private and are left for the guest to accept.
/// @return kUnsupported for a guest without memory at the reset vector; the failed command, or
///         what MakeLaunchPrivate says
Status LaunchTdx(const ConfidentialGuest::Guest& guest, bool in_place);

}  // namespace holdfast::object
