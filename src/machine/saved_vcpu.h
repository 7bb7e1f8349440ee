// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>
#include <holdfast/kvm_abi.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/state.h"

namespace holdfast::kvm {
class System;
class Vcpu;
class Vm;
}  // namespace holdfast::kvm

namespace holdfast::machine {

/// What of a vCPU's state this host's KVM can give and take.
struct VcpuAbilities {
  /// Asks `vm`, which has its interrupt controllers.
  static Result<VcpuAbilities> Of(const kvm::System& system, const kvm::Vm& vm);

  std::vector<std::uint32_t> msrs;  ///< sorted; those of KVM's list, MTRRs and machine checks
  std::size_t xsave_size = 0;       ///< bytes of FPU and vector registers
  std::size_t nested_size = 0;      ///< bytes; 0: guests have no hypervisor of their own
  bool xcrs = false;                ///< the processor has XSAVE
  bool sregs2 = false;
  bool tsc_khz = false;      ///< the frequency of the TSC is known
  bool tsc_scaling = false;  ///< and can be another than the host's
};

/// Everything of a vCPU: what a snapshot holds of it.
///
/// Thread-safety: one thread, while the vCPU stands.
class SavedVcpu {
 public:
  /// The TSC offset of the first vCPU, then and now: by it the others' keep their distance.
  struct TscReference {
    std::uint64_t saved = 0;
    std::uint64_t now = 0;
  };

  /// To be loaded into.
  SavedVcpu() = default;
  /// @param cpuid  what the guest was given
  static Result<SavedVcpu> Take(const kvm::Vcpu& vcpu, const VcpuAbilities& abilities,
                                std::span<const kvm_cpuid_entry2> cpuid);
  void VisitState(state::Fields& fields);

  /// Whether a guest with this state can go on with a processor that is `here`.
  /// @return kUnsupported naming what is missing
  Status CheckProcessor(std::span<const kvm_cpuid_entry2> here) const;
  /// Gives the vCPU this state. kvmclock and interrupt controllers have theirs already.
  /// @param cpuid      what the guest is given here; becomes what it was given when saved
  /// @param reference  empty for the first vCPU, which sets it
  /// @return kUnsupported: this host lacks something, which is named; else the failed ioctl
  Status Restore(const kvm::Vcpu& vcpu, const VcpuAbilities& abilities,
                 std::vector<kvm_cpuid_entry2>& cpuid,
                 std::optional<TscReference>& reference) const;

 private:
  Status RestoreCpuid(const kvm::Vcpu& vcpu, std::vector<kvm_cpuid_entry2>& here) const;
  Status RestoreSregs(const kvm::Vcpu& vcpu, const VcpuAbilities& abilities) const;
  Status RestoreFpu(const kvm::Vcpu& vcpu, const VcpuAbilities& abilities) const;
  Status RestoreMsrs(const kvm::Vcpu& vcpu, const VcpuAbilities& abilities) const;
  Status RestoreTscFrequency(const kvm::Vcpu& vcpu, const VcpuAbilities& abilities) const;
  Status RestoreTsc(const kvm::Vcpu& vcpu, std::optional<TscReference>& reference) const;
  std::optional<kvm_msr_entry> Msr(std::uint32_t index) const;

  std::vector<kvm_cpuid_entry2> cpuid_;
  kvm_mp_state mp_state_{};
  kvm_vcpu_events events_{};
  kvm_regs regs_{};
  kvm_sregs sregs_{};
  bool has_pdptrs_ = false;
  std::uint64_t pdptrs_[4] = {};
  std::vector<std::byte> xsave_;  // FPU and vector registers
  kvm_xcrs xcrs_{};               // without XSAVE: none
  kvm_debugregs debug_regs_{};
  kvm_lapic_state lapic_{};
  std::vector<kvm_msr_entry> msrs_;
  std::vector<std::byte> nested_;  // empty: guests had no hypervisor of their own
  std::uint32_t tsc_khz_ = 0;      // 0: unknown
  bool has_tsc_offset_ = false;
  std::uint64_t tsc_offset_ = 0;
};

}  // namespace holdfast::machine
