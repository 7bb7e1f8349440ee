// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>
#include <holdfast/kvm_abi.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace holdfast::kvm {
class Vcpu;
}

namespace holdfast::machine {

namespace boot {
struct LoadedGuest;
}

/// A vCPU's state as KVM made it, to go back to at a guest reset. Taken rather than made up: the
/// processor's reset values are KVM's business, and every MSR of this host is covered.
class PowerOnState {
 public:
  /// @param msr_indices  System::MsrIndexList()
  static Result<PowerOnState> Take(const kvm::Vcpu& vcpu,
                                   std::span<const std::uint32_t> msr_indices);
  Status Restore(const kvm::Vcpu& vcpu) const;

 private:
  PowerOnState() = default;
  kvm_regs regs_{};
  kvm_sregs sregs_{};
  kvm_fpu fpu_{};
  kvm_lapic_state lapic_{};
  kvm_mp_state mp_state_{};
  kvm_vcpu_events events_{};
  kvm_debugregs debug_regs_{};
  std::optional<kvm_xcrs> xcrs_;  // empty where the host has no XSAVE
  std::vector<kvm_msr_entry> msrs_;
};

/// Puts the boot vCPU where `guest` starts, as its protocol says.
Status EnterGuest(const kvm::Vcpu& vcpu, const boot::LoadedGuest& guest);

}  // namespace holdfast::machine
