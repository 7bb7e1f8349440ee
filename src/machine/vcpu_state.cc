// SPDX-License-Identifier: Apache-2.0
#include "machine/vcpu_state.h"

#include <holdfast/vcpu.h>

#include <array>

#include "machine/boot/guest_image.h"

namespace holdfast::machine {
namespace {

constexpr std::uint64_t kCr0Pe = 1U << 0;
constexpr std::uint64_t kCr0Et = 1U << 4;
constexpr std::uint64_t kCr0Pg = 1U << 31;
constexpr std::uint64_t kCr4Pae = 1U << 5;
constexpr std::uint64_t kEferLme = 1U << 8;
constexpr std::uint64_t kEferLma = 1U << 10;
constexpr std::uint64_t kRflagsReserved = 1U << 1;  // always one
// Descriptor types (SDM vol. 3A 3.4.5.1 and 3.5).
constexpr std::uint8_t kTypeCode = 0xb;  // execute, read, accessed
constexpr std::uint8_t kTypeData = 0x3;  // read, write, accessed
constexpr std::uint8_t kTypeBusyTss = 0xb;

constexpr std::uint32_t kMsrMtrrDefType = 0x2ff;
// MTRRs on, default type write-back: what firmware leaves. Without it Linux skips the PAT too.
constexpr std::uint64_t kMtrrEnabledWriteBack = 1U << 11 | 6;

kvm_segment FlatSegment(std::uint8_t type, std::uint16_t selector, bool long_mode) {
  kvm_segment segment{};
  segment.limit = 0xffffffff;
  segment.selector = selector;
  segment.type = type;
  segment.present = 1;
  segment.s = 1;
  segment.g = 1;
  segment.l = long_mode ? 1 : 0;
  segment.db = long_mode ? 0 : 1;
  return segment;
}

void SetSegments(kvm_sregs& sregs, bool long_mode) {
  sregs.cs = FlatSegment(kTypeCode, boot::kCodeSelector, long_mode);
  const kvm_segment data = FlatSegment(kTypeData, boot::kDataSelector, false);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
  kvm_segment tss{};
  tss.limit = 0x67;
  tss.selector = boot::kTssSelector;
  tss.type = kTypeBusyTss;
  tss.present = 1;
  sregs.tr = tss;
}

// Linux' boot protocol, "64-bit boot protocol": long mode, identity map, CS and DS as in the GDT,
// interrupts off, RSI the zero page.
void EnterLinux64(const boot::LoadedGuest& guest, kvm_sregs& sregs, kvm_regs& regs) {
  SetSegments(sregs, true);
  if (guest.long_mode) {
    sregs.gdt.base = guest.long_mode->gdt.value();
    sregs.gdt.limit = guest.long_mode->gdt_limit;
    sregs.cr3 = guest.long_mode->page_tables.value();
  }
  sregs.cr0 = kCr0Pe | kCr0Et | kCr0Pg;
  sregs.cr4 = kCr4Pae;
  sregs.efer = kEferLme | kEferLma;
  regs.rsi = guest.boot_info.value();
}

// PVH: 32-bit protected mode without paging, flat segments, EBX the start info.
void EnterPvh(const boot::LoadedGuest& guest, kvm_sregs& sregs, kvm_regs& regs) {
  SetSegments(sregs, false);
  sregs.cr0 = kCr0Pe | kCr0Et;
  sregs.cr4 = 0;
  sregs.efer = 0;
  regs.rbx = guest.boot_info.value();
}

}  // namespace

Result<PowerOnState> PowerOnState::Take(const kvm::Vcpu& vcpu,
                                        std::span<const std::uint32_t> msr_indices) {
  PowerOnState state;
  HF_TRY(state.regs_, vcpu.GetRegs());
  HF_TRY(state.sregs_, vcpu.GetSregs());
  HF_TRY(state.fpu_, vcpu.GetFpu());
  HF_TRY(state.lapic_, vcpu.GetLapic());
  HF_TRY(state.mp_state_, vcpu.GetMpState());
  HF_TRY(state.events_, vcpu.GetEvents());
  HF_TRY(state.debug_regs_, vcpu.GetDebugRegs());
  // A host without XSAVE (the lab) answers with none and refuses to be given none back.
  if (auto xcrs = vcpu.GetXcrs(); xcrs && xcrs->nr_xcrs > 0) state.xcrs_ = *xcrs;
  HF_TRY(state.msrs_, vcpu.GetMsrs(msr_indices));
  return state;
}

Status PowerOnState::Restore(const kvm::Vcpu& vcpu) const {
  HF_TRY_STATUS(vcpu.SetMpState(mp_state_));
  HF_TRY_STATUS(vcpu.SetRegs(regs_));
  HF_TRY_STATUS(vcpu.SetSregs(sregs_));
  HF_TRY_STATUS(vcpu.SetFpu(fpu_));
  if (xcrs_) HF_TRY_STATUS(vcpu.SetXcrs(*xcrs_));
  HF_TRY_STATUS(vcpu.SetDebugRegs(debug_regs_));
  // One by one: some that can be read cannot be written back (feature MSRs once the vCPU has run,
  // debug-control bits a host lacks). Those never left their power-on value.
  for (const kvm_msr_entry& entry : msrs_) (void)vcpu.SetMsrs({&entry, 1});
  HF_TRY_STATUS(vcpu.SetLapic(lapic_));
  HF_TRY_STATUS(vcpu.SetEvents(events_));
  return {};
}

Status EnterGuest(const kvm::Vcpu& vcpu, const boot::LoadedGuest& guest) {
  HF_TRY(kvm_sregs sregs, vcpu.GetSregs());
  kvm_regs regs{};
  regs.rflags = kRflagsReserved;
  regs.rip = guest.entry.value();
  if (guest.protocol == boot::LoadedGuest::Protocol::kLinux64) {
    EnterLinux64(guest, sregs, regs);
  } else {
    EnterPvh(guest, sregs, regs);
  }
  HF_TRY_STATUS(vcpu.SetSregs(sregs));
  HF_TRY_STATUS(vcpu.SetRegs(regs));
  kvm_msr_entry mtrr{};
  mtrr.index = kMsrMtrrDefType;
  mtrr.data = kMtrrEnabledWriteBack;
  HF_TRY_STATUS(vcpu.SetMsrs({&mtrr, 1}));
  return {};
}

}  // namespace holdfast::machine
