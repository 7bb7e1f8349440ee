// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>
#include <linux/kvm.h>

#include <span>

namespace holdfast::machine {

/// Whether a guest that was given the CPUID table `saved` can go on where `here` is what a guest is
/// given: the same vendor, no feature that is missing here, no fewer physical address bits, and
/// what XSAVE writes at the same places.
/// @return kUnsupported naming leaf, register and bit. Sources: Intel SDM vol. 2A "CPUID", AMD APM
///         vol. 3 appendix E, Documentation/virt/kvm/x86/cpuid.rst
Status CheckCpuid(std::span<const kvm_cpuid_entry2> saved, std::span<const kvm_cpuid_entry2> here);

}  // namespace holdfast::machine
