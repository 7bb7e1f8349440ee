// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <span>
#include <vector>

#include <holdfast/error.h>

#include "kvm/tdx_abi.h"

namespace holdfast::kvm {

class Vcpu;
class Vm;

/// What this kernel with its TDX module lets a guest have.
struct TdxLimits {
  std::uint64_t attributes = 0;  ///< the TD attributes that may be set
  std::uint64_t xfam = 0;        ///< the extended features that may be
  /// The CPUID leaves that may be configured, with the bits that may be set.
  std::vector<kvm_cpuid_entry2> cpuid;
};

// The commands of a VM of type kVmTypeTdx, in the order in which a launch gives them. Each error
// names the command, and the TDX module's status where it has one. One thread, before the first
// vCPU runs.

/// KVM_TDX_CAPABILITIES.
Result<TdxLimits> TdxCapabilities(const Vm& vm);
/// KVM_TDX_INIT_VM, before the first vCPU; `init`'s CPUID header is filled in here. Tries again
/// while the processor is out of random numbers, at most for half a minute.
Status TdxInitVm(const Vm& vm, const abi::TdxInitVm& init, std::span<const kvm_cpuid_entry2> cpuid);
/// KVM_TDX_INIT_VCPU. @param rcx  what the guest finds in RCX: where its HOB is
Status TdxInitVcpu(const Vcpu& vcpu, std::uint64_t rcx);
/// KVM_TDX_INIT_MEM_REGION until all of `region` is done; it is moved on as the kernel does it.
Status TdxInitMemRegion(const Vcpu& vcpu, abi::TdxMemRegion& region, bool measure);
/// KVM_TDX_FINALIZE_VM.
Status TdxFinalizeVm(const Vm& vm);

}  // namespace holdfast::kvm
