// SPDX-License-Identifier: Apache-2.0
#include "machine/saved_vcpu.h"

#include <fmt/format.h>
#include <holdfast/kvm_system.h>
#include <holdfast/vcpu.h>
#include <holdfast/vm.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "machine/cpuid_check.h"

namespace holdfast::machine {
namespace {

// MSRs by their names in the Intel SDM vol. 4.
constexpr std::uint32_t kMsrTsc = 0x10;
constexpr std::uint32_t kMsrTscDeadline = 0x6e0;

// State that KVM does not have in its list. A vCPU without one of them leaves it out.
constexpr std::pair<std::uint32_t, std::uint32_t> kUnlistedMsrs[] = {
    {0x200, 0x20f},  // IA32_MTRR_PHYSBASE0 to PHYSMASK7
    {0x250, 0x250},  // IA32_MTRR_FIX64K_00000
    {0x258, 0x259},  // IA32_MTRR_FIX16K
    {0x268, 0x26f},  // IA32_MTRR_FIX4K
    {0x280, 0x29f},  // IA32_MCi_CTL2
    {0x2ff, 0x2ff},  // IA32_MTRR_DEF_TYPE
    {0x400, 0x47f},  // IA32_MCi_CTL, STATUS, ADDR, MISC
};

// Bounds on what a stream may hold, far above what any host has.
constexpr std::size_t kMostCpuidEntries = 256;
constexpr std::size_t kMostMsrs = 4096;
constexpr std::size_t kMostXsave = 64 * 1024;
constexpr std::size_t kMostNested = 64 * 1024;

// As far as frequencies may differ without a guest noticing: what KVM tolerates, 250 ppm.
bool SameFrequency(std::uint64_t a, std::uint64_t b) {
  const std::uint64_t difference = a > b ? a - b : b - a;
  return difference * 1'000'000 <= b * 250;
}

Status Explain(Status status, std::string_view what) {
  if (status) return status;
  return Fail(std::move(status).error().Wrap(what));
}

}  // namespace

Result<VcpuAbilities> VcpuAbilities::Of(const kvm::System& system, const kvm::Vm& vm) {
  VcpuAbilities abilities;
  HF_TRY(abilities.msrs, system.MsrIndexList());
  for (const auto& [first, last] : kUnlistedMsrs) {
    for (std::uint32_t index = first; index <= last; ++index) abilities.msrs.push_back(index);
  }
  std::ranges::sort(abilities.msrs);
  const auto twice = std::ranges::unique(abilities.msrs);
  abilities.msrs.erase(twice.begin(), twice.end());
  const auto size_of = [&vm](int capability) {
    return static_cast<std::size_t>(std::max(vm.CheckExtension(capability), 0));
  };
  abilities.xsave_size = std::max<std::size_t>(size_of(KVM_CAP_XSAVE2), kvm::abi::kXsaveHeaderSize);
  abilities.xcrs = vm.CheckExtension(KVM_CAP_XCRS) > 0;
  abilities.nested_size = size_of(KVM_CAP_NESTED_STATE);
  abilities.sregs2 = vm.CheckExtension(KVM_CAP_SREGS2) > 0;
  abilities.tsc_khz = vm.CheckExtension(KVM_CAP_GET_TSC_KHZ) > 0;
  abilities.tsc_scaling = vm.CheckExtension(KVM_CAP_TSC_CONTROL) > 0;
  return abilities;
}

Result<SavedVcpu> SavedVcpu::Take(const kvm::Vcpu& vcpu, const VcpuAbilities& abilities,
                                  std::span<const kvm_cpuid_entry2> cpuid) {
  SavedVcpu saved;
  saved.cpuid_.assign(cpuid.begin(), cpuid.end());
  // First what changes other registers when it is asked for: a start-up message that has arrived
  // sets CS and RIP, an exception that waits sets CR2 and DR6.
  HF_TRY(saved.mp_state_, vcpu.GetMpState());
  HF_TRY(saved.events_, vcpu.GetEvents());
  HF_TRY(saved.regs_, vcpu.GetRegs());
  HF_TRY(saved.sregs_, vcpu.GetSregs());
  if (abilities.sregs2) {
    HF_TRY(const kvm_sregs2 sregs2, vcpu.GetSregs2());
    saved.has_pdptrs_ = (sregs2.flags & KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0;
    if (saved.has_pdptrs_) std::ranges::copy(sregs2.pdptrs, saved.pdptrs_);
  }
  HF_TRY(saved.xsave_, vcpu.GetXsave(abilities.xsave_size));
  if (abilities.xcrs) {
    HF_TRY(saved.xcrs_, vcpu.GetXcrs());
  }
  HF_TRY(saved.debug_regs_, vcpu.GetDebugRegs());
  HF_TRY(saved.lapic_, vcpu.GetLapic());
  HF_TRY(saved.msrs_, vcpu.GetMsrs(abilities.msrs));
  if (abilities.nested_size != 0) {
    HF_TRY(saved.nested_, vcpu.GetNestedState(abilities.nested_size));
  }
  if (abilities.tsc_khz) {
    HF_TRY(saved.tsc_khz_, vcpu.GetTscKhz());
  }
  HF_TRY(const std::optional<std::uint64_t> offset, vcpu.GetTscOffset());
  saved.has_tsc_offset_ = offset.has_value();
  saved.tsc_offset_ = offset.value_or(0);
  return saved;
}

void SavedVcpu::VisitState(state::Fields& fields) {
  fields.List("cpuid", cpuid_, kMostCpuidEntries,
              [](state::Fields& inner, kvm_cpuid_entry2& one) { inner.Struct("leaf", one); });
  fields.Value("mp-state", mp_state_.mp_state);
  fields.Struct("events", events_);
  fields.Struct("regs", regs_);
  fields.Struct("sregs", sregs_);
  fields.Value("has-pdptrs", has_pdptrs_);
  fields.Struct("pdptrs", pdptrs_);
  fields.Blob("xsave", xsave_, kMostXsave);
  fields.Struct("xcrs", xcrs_);
  fields.Struct("debug-regs", debug_regs_);
  fields.Struct("lapic", lapic_);
  fields.List("msrs", msrs_, kMostMsrs, [](state::Fields& inner, kvm_msr_entry& one) {
    inner.Value("index", one.index);
    inner.Value("data", one.data);
  });
  fields.Blob("nested", nested_, kMostNested);
  fields.Value("tsc-khz", tsc_khz_);
  fields.Value("has-tsc-offset", has_tsc_offset_);
  fields.Value("tsc-offset", tsc_offset_);
}

// Each register where what it depends on is in place: the mode (special registers) before all, the
// frequency of the TSC before its value, the mode of the local APIC (IA32_APIC_BASE, among the
// special registers) before its registers, its timer's mode before the deadline, what is being
// delivered after the registers that delivery changes.
Status SavedVcpu::Restore(const kvm::Vcpu& vcpu, const VcpuAbilities& abilities,
                          std::vector<kvm_cpuid_entry2>& cpuid,
                          std::optional<TscReference>& reference) const {
  HF_TRY_STATUS(RestoreCpuid(vcpu, cpuid));
  HF_TRY_STATUS(Explain(RestoreSregs(vcpu, abilities), "the saved special registers"));
  if (abilities.nested_size != 0 && !nested_.empty()) {
    HF_TRY_STATUS(Explain(vcpu.SetNestedState(nested_), "the state of the guest's hypervisor"));
  }
  HF_TRY_STATUS(RestoreTscFrequency(vcpu, abilities));
  HF_TRY_STATUS(Explain(vcpu.SetRegs(regs_), "the saved registers"));
  HF_TRY_STATUS(RestoreFpu(vcpu, abilities));
  HF_TRY_STATUS(RestoreMsrs(vcpu, abilities));
  HF_TRY_STATUS(RestoreTsc(vcpu, reference));
  HF_TRY_STATUS(Explain(vcpu.SetLapic(lapic_), "the saved local APIC"));
  HF_TRY_STATUS(Explain(vcpu.SetEvents(events_), "the saved events"));
  HF_TRY_STATUS(Explain(vcpu.SetMpState(mp_state_), "the saved MP state"));
  if (const auto deadline = Msr(kMsrTscDeadline)) {
    HF_TRY_STATUS(vcpu.SetMsrs({&*deadline, 1}));
  }
  return Explain(vcpu.SetDebugRegs(debug_regs_), "the saved debug registers");
}

Status SavedVcpu::CheckProcessor(std::span<const kvm_cpuid_entry2> here) const {
  return CheckCpuid(cpuid_, here);
}

// The guest must not find its processor changed. KVM takes another table only before the vCPU has
// run; one that has is of the process that made the state, as a rule with the same table.
Status SavedVcpu::RestoreCpuid(const kvm::Vcpu& vcpu, std::vector<kvm_cpuid_entry2>& here) const {
  HF_TRY_STATUS(CheckProcessor(here));
  const bool same =
      cpuid_.size() == here.size() &&
      std::memcmp(cpuid_.data(), here.data(), cpuid_.size() * sizeof(kvm_cpuid_entry2)) == 0;
  if (same) return {};
  HF_TRY_STATUS(Explain(vcpu.SetCpuid(cpuid_), "the saved CPUID answers"));
  here = cpuid_;
  return {};
}

Status SavedVcpu::RestoreSregs(const kvm::Vcpu& vcpu, const VcpuAbilities& abilities) const {
  if (!abilities.sregs2 || !has_pdptrs_) return vcpu.SetSregs(sregs_);
  const kvm_sregs& from = sregs_;
  kvm_sregs2 to{.cs = from.cs,
                .ds = from.ds,
                .es = from.es,
                .fs = from.fs,
                .gs = from.gs,
                .ss = from.ss,
                .tr = from.tr,
                .ldt = from.ldt,
                .gdt = from.gdt,
                .idt = from.idt,
                .cr0 = from.cr0,
                .cr2 = from.cr2,
                .cr3 = from.cr3,
                .cr4 = from.cr4,
                .cr8 = from.cr8,
                .efer = from.efer,
                .apic_base = from.apic_base,
                .flags = KVM_SREGS2_FLAGS_PDPTRS_VALID,
                .pdptrs = {}};
  std::ranges::copy(pdptrs_, to.pdptrs);
  return vcpu.SetSregs2(to);
}

// KVM gives and takes the XSAVE form even where the processor has no XSAVE; KVM_GET_FPU has no
// MXCSR in it (6.18).
Status SavedVcpu::RestoreFpu(const kvm::Vcpu& vcpu, const VcpuAbilities& abilities) const {
  // What KVM reads must be there whole; more than it reads is for features that it has not.
  std::vector<std::byte> area = xsave_;
  const bool fits =
      area.size() <= abilities.xsave_size ||
      std::ranges::all_of(area.begin() + static_cast<std::ptrdiff_t>(abilities.xsave_size),
                          area.end(), [](std::byte byte) { return byte == std::byte{0}; });
  if (!fits) {
    return Fail(Errc::kUnsupported,
                fmt::format("the saved XSAVE area has {} bytes, this host's has {}", area.size(),
                            abilities.xsave_size),
                "Restore it on a host with the same kind of processor.");
  }
  area.resize(abilities.xsave_size);
  if (abilities.xcrs && xcrs_.nr_xcrs != 0)
    HF_TRY_STATUS(Explain(vcpu.SetXcrs(xcrs_), "the saved extended control registers"));
  return Explain(vcpu.SetXsave(area), "the saved FPU and vector registers");
}

// Not all that can be read can be written: what describes the processor cannot once the vCPU has
// run, and need not where it is the same. What this host does not know must be zero, as it is in a
// guest that has never used it.
Status SavedVcpu::RestoreMsrs(const kvm::Vcpu& vcpu, const VcpuAbilities& abilities) const {
  for (const kvm_msr_entry& saved : msrs_) {
    if (saved.index == kMsrTsc || saved.index == kMsrTscDeadline) continue;
    const bool known = std::ranges::binary_search(abilities.msrs, saved.index);
    if (known && vcpu.SetMsrs({&saved, 1})) continue;
    HF_TRY(const std::vector<kvm_msr_entry> here, vcpu.GetMsrs({&saved.index, 1}));
    if (saved.data == (known && !here.empty() ? here.front().data : 0)) continue;
    return Fail(
        Errc::kUnsupported,
        fmt::format("KVM refuses to set MSR {:#x} to the saved {:#x}", saved.index, saved.data),
        "Restore it on a host with the same kind of processor and kernel.");
  }
  return {};
}

Status SavedVcpu::RestoreTscFrequency(const kvm::Vcpu& vcpu, const VcpuAbilities& abilities) const {
  if (tsc_khz_ == 0 || !abilities.tsc_khz) return {};
  HF_TRY(const unsigned khz, vcpu.GetTscKhz());
  if (SameFrequency(tsc_khz_, khz)) return {};
  if (!abilities.tsc_scaling) {
    return Fail(Errc::kUnsupported,
                fmt::format("the TSC of the saved CPU has {} kHz, this host's has {} kHz and "
                            "cannot be scaled",
                            tsc_khz_, khz),
                "Restore it on a host with the same frequency, or one that can scale the TSC.");
  }
  return Explain(vcpu.SetTscKhz(tsc_khz_), fmt::format("a TSC of {} kHz", tsc_khz_));
}

// The first vCPU's TSC goes on from its saved value. KVM takes two values that are written within a
// second for the same; offsets it takes as they are, so the others keep theirs to the cycle.
Status SavedVcpu::RestoreTsc(const kvm::Vcpu& vcpu, std::optional<TscReference>& reference) const {
  if (reference && has_tsc_offset_) {
    return Explain(vcpu.SetTscOffset(reference->now + (tsc_offset_ - reference->saved)),
                   "the saved TSC offset");
  }
  const auto tsc = Msr(kMsrTsc);
  if (tsc) HF_TRY_STATUS(vcpu.SetMsrs({&*tsc, 1}));
  if (!has_tsc_offset_) return {};
  HF_TRY(const std::optional<std::uint64_t> now, vcpu.GetTscOffset());
  if (now) reference = TscReference{.saved = tsc_offset_, .now = *now};
  return {};
}

std::optional<kvm_msr_entry> SavedVcpu::Msr(std::uint32_t index) const {
  const auto found = std::ranges::find(msrs_, index, &kvm_msr_entry::index);
  if (found == msrs_.end()) return std::nullopt;
  return *found;
}

}  // namespace holdfast::machine
