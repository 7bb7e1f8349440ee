// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/kvm.h>

#include <cstdint>
#include <span>
#include <vector>

#include "machine/config.h"

namespace holdfast::machine {

/// What of the CPUID answers depends on the VM rather than on the host.
struct CpuidOptions {
  CpuTopology topology;
  bool map_gpa_range = false;       ///< the guest may convert memory by hypercall
  bool tsc_deadline_timer = false;  ///< KVM_CAP_TSC_DEADLINE_TIMER: KVM leaves the bit to us
};

/// The CPUID table of the vCPU with `apic_id`: everything `supported` by the host's KVM, with
/// topology and APIC id of this vCPU and the hypervisor bit (`-cpu host`, which `max` equals under
/// KVM).
std::vector<kvm_cpuid_entry2> BuildCpuid(std::span<const kvm_cpuid_entry2> supported,
                                         const CpuidOptions& options, std::uint32_t apic_id);

/// Physical address bits guests have: leaf 0x80000008, 36 where there is none.
unsigned GuestPhysBits(std::span<const kvm_cpuid_entry2> supported) noexcept;

}  // namespace holdfast::machine
