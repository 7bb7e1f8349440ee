// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>
#include <holdfast/guest_address.h>
#include <holdfast/kvm_abi.h>
#include <holdfast/mapping.h>
#include <holdfast/unique_fd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace holdfast::kvm {

class DirtyRings;
class Vm;

/// A virtual CPU.
///
/// Thread-safety: one thread at a time, the one that runs it; RequestExit() from any thread or
/// signal handler. State functions while it does not run.
class Vcpu {
 public:
  /// How KVM_RUN ended.
  enum class RunOutcome : std::uint8_t {
    kExit,         ///< run().exit_reason says what the guest wants
    kInterrupted,  ///< a signal or RequestExit(); the guest has not asked for anything
  };

  /// @param id  the vCPU's id, which is also its initial APIC id
  static Result<Vcpu> Create(const Vm& vm, unsigned id);

  int fd() const noexcept { return fd_.get(); }
  unsigned id() const noexcept { return id_; }

  /// Runs the guest until it needs us. A memory fault (EFAULT with exit reason
  /// KVM_EXIT_MEMORY_FAULT) is an exit, not an error; EFAULT without one is an error, because then
  /// no address is known. Full dirty rings are emptied, and the guest runs on.
  Result<RunOutcome> Run();
  /// The area shared with KVM: exit reason and data.
  kvm_run& run() const noexcept { return *reinterpret_cast<kvm_run*>(run_.data()); }
  /// Bytes of the I/O data of a KVM_EXIT_IO: size * count at its offset, checked against the
  /// mapping. Empty if KVM's description does not fit.
  std::span<std::byte> io_data() const noexcept;
  /// Of a kExitMemoryFault.
  abi::MemoryFaultExit memory_fault() const noexcept;
  /// Makes the next (or current, together with a signal) Run() return kInterrupted.
  void RequestExit() const noexcept;
  void ClearExitRequest() const noexcept;

  Status SetCpuid(std::span<const kvm_cpuid_entry2> entries) const;
  /// What SetCpuid gave it, with what KVM has changed in it since.
  Result<std::vector<kvm_cpuid_entry2>> GetCpuid() const;
  Result<kvm_regs> GetRegs() const;
  Status SetRegs(const kvm_regs& regs) const;
  Result<kvm_sregs> GetSregs() const;
  Status SetSregs(const kvm_sregs& sregs) const;
  Result<kvm_fpu> GetFpu() const;
  Status SetFpu(const kvm_fpu& fpu) const;
  Result<kvm_lapic_state> GetLapic() const;
  Status SetLapic(const kvm_lapic_state& lapic) const;
  /// Queues a non-maskable interrupt. Waits while the vCPU is in Run(). @return the failed ioctl
  Status InjectNmi() const;
  Result<kvm_mp_state> GetMpState() const;
  Status SetMpState(const kvm_mp_state& state) const;
  Result<kvm_vcpu_events> GetEvents() const;
  Status SetEvents(const kvm_vcpu_events& events) const;
  Result<kvm_debugregs> GetDebugRegs() const;
  Status SetDebugRegs(const kvm_debugregs& regs) const;
  /// XCR0 and friends; kUnsupported-like errors where the host has no XSAVE.
  Result<kvm_xcrs> GetXcrs() const;
  Status SetXcrs(const kvm_xcrs& xcrs) const;
  /// The special registers with the PDPTRs of a guest in PAE mode (KVM_CAP_SREGS2, Linux 5.14);
  /// without KVM reads them from guest memory when they are set.
  Result<kvm_sregs2> GetSregs2() const;
  Status SetSregs2(const kvm_sregs2& sregs) const;
  /// All of FPU, SSE, AVX … in the layout of CPUID leaf 0xd. @param size  bytes: what the VM
  /// answers for KVM_CAP_XSAVE2 (Linux 5.17), 4096 where it answers nothing
  Result<std::vector<std::byte>> GetXsave(std::size_t size) const;
  /// @param area  of the size that GetXsave() needs here: KVM reads so much
  Status SetXsave(std::span<const std::byte> area) const;
  /// State of a guest's own hypervisor (KVM_CAP_NESTED_STATE, Linux 4.20). @param most  the VM's
  /// answer to that capability. The answer may be shorter.
  Result<std::vector<std::byte>> GetNestedState(std::size_t most) const;
  /// @return kInvalidArgument where `state` is not as long as it says itself
  Status SetNestedState(std::span<const std::byte> state) const;
  /// Frequency of the guest's TSC in kHz (KVM_CAP_GET_TSC_KHZ).
  Result<unsigned> GetTscKhz() const;
  /// Before the vCPU runs. Without KVM_CAP_TSC_CONTROL a frequency other than the host's is refused
  /// or only approximated.
  Status SetTscKhz(unsigned khz) const;
  /// What is added to the host's TSC (KVM_VCPU_TSC_OFFSET, Linux 5.16); empty where KVM does not
  /// say.
  Result<std::optional<std::uint64_t>> GetTscOffset() const;
  Status SetTscOffset(std::uint64_t offset) const;
  /// Tells a guest with kvmclock that it has stood, so that its watchdogs do not blame themselves.
  /// @return EINVAL where the guest does not use kvmclock
  Status NotifyPaused() const;
  /// Lets KVM map [from, from + size) for this vCPU before it is touched (KVM_PRE_FAULT_MEMORY,
  /// Linux 6.11). Only by the thread that runs it. @return the bytes that are mapped from the start
  /// on, which may be fewer; the failed ioctl where it is none.
  Result<std::uint64_t> PreFault(GuestAddress from, std::uint64_t size) const;
  /// Where the vCPU's page tables, as they are now, map this linear address.
  /// @return the guest physical address; empty where nothing is mapped.
  Result<std::optional<std::uint64_t>> Translate(std::uint64_t linear_address) const;
  /// Reads the MSRs of `indices` that this vCPU has; others are left out of the answer.
  Result<std::vector<kvm_msr_entry>> GetMsrs(std::span<const std::uint32_t> indices) const;
  /// Writes all of them or says which one KVM refused.
  Status SetMsrs(std::span<const kvm_msr_entry> entries) const;

 private:
  Vcpu(UniqueFd fd, Mapping run, unsigned id, std::shared_ptr<DirtyRings> rings)
      : fd_(std::move(fd)), run_(std::move(run)), id_(id), rings_(std::move(rings)) {}
  UniqueFd fd_;
  Mapping run_;
  unsigned id_;
  std::shared_ptr<DirtyRings> rings_;  // the VM's; null without
};

}  // namespace holdfast::kvm
