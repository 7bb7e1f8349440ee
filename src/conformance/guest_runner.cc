// SPDX-License-Identifier: Apache-2.0
#include "conformance/guest_runner.h"

#include <holdfast/units.h>
#include <linux/kvm.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace holdfast::conformance {
namespace {

using model::GuestAccess;

// Guest physical layout.
constexpr std::uint64_t kGdt = 0x500;
constexpr std::uint64_t kPml4 = 0x1000;
constexpr std::uint64_t kPdpt = 0x2000;
constexpr std::uint64_t kDirectories = 0x3000;  // one for each GiB
constexpr std::uint64_t kTss = 0x14000;         // with a permission bitmap for all ports
constexpr std::uint64_t kTssSize = 0x68;
constexpr std::uint64_t kPortBitmapSize = 65536 / 8;
constexpr std::uint64_t kProgram = 0x20000;
constexpr std::uint64_t kMailbox = 0x21000;
constexpr std::uint64_t kMemorySize = 256 * kKiB;
constexpr std::uint64_t kGiBs = GuestRunner::kEndAddress / kGiB;
static_assert(kDirectories + kGiBs * kPageSize <= kTss);
static_assert(kTss + kTssSize + kPortBitmapSize < kProgram);

// The mailbox's words.
constexpr std::uint64_t kWhat = kMailbox;  // 0: read
constexpr std::uint64_t kAddress = kMailbox + 8;
constexpr std::uint64_t kValue = kMailbox + 16;
constexpr std::uint64_t kFirstWord = kMailbox + 24;
constexpr std::uint64_t kLastWord = kMailbox + 32;

constexpr std::uint8_t kCode[] = {
    0x41, 0xb8, 0x00, 0x10, 0x02, 0x00,        //       mov r8d, kMailbox
    0x49, 0x8b, 0x78, 0x08,                    // next: mov rdi, [r8 + 8]
    0x49, 0x8b, 0x70, 0x10,                    //       mov rsi, [r8 + 16]
    0x49, 0x83, 0x38, 0x00,                    //       cmp qword [r8], 0
    0x75, 0x14,                                //       jne write
    0x48, 0x8b, 0x07,                          //       mov rax, [rdi]
    0x48, 0x8b, 0x9f, 0xf8, 0x0f, 0x00, 0x00,  //       mov rbx, [rdi + 4088]
    0x49, 0x89, 0x40, 0x18,                    //       mov [r8 + 24], rax
    0x49, 0x89, 0x58, 0x20,                    //       mov [r8 + 32], rbx
    0xeb, 0x0a,                                //       jmp done
    0x48, 0x89, 0x37,                          // write: mov [rdi], rsi
    0x48, 0x89, 0xb7, 0xf8, 0x0f, 0x00, 0x00,  //       mov [rdi + 4088], rsi
    0xe6, 0x10,                                // done: out 0x10, al
    0xeb, 0xd0,                                //       jmp next
};

// Present, writable, user, accessed, dirty.
constexpr std::uint64_t kTable = 0x67;
constexpr std::uint64_t kLargePage = 0xe7;

constexpr std::uint16_t kCodeSelector = 0x30 | 3;
constexpr std::uint16_t kDataSelector = 0x28 | 3;
constexpr std::uint16_t kTaskSelector = 0x40;

kvm_segment FlatSegment(std::uint16_t selector, std::uint8_t type, bool code) {
  kvm_segment segment{};
  segment.limit = 0xffffffff;
  segment.selector = selector;
  segment.type = type;
  segment.present = 1;
  segment.dpl = 3;
  segment.s = 1;
  segment.g = 1;
  segment.l = code ? 1 : 0;
  segment.db = code ? 0 : 1;
  return segment;
}

}  // namespace

Result<std::unique_ptr<GuestRunner>> GuestRunner::Create(const kvm::System& system,
                                                         const kvm::Vm& vm) {
  HF_TRY(Mapping memory, Mapping::MapAnonymous(kMemorySize, "the guest's own memory"));
  kvm::Memslot slot;
  slot.slot = kSlot;
  slot.size = kMemorySize;
  slot.userspace_addr = memory.address();
  HF_TRY_STATUS(vm.SetMemslot(slot));
  HF_TRY(kvm::Vcpu vcpu, kvm::Vcpu::Create(vm, 0));
  HF_TRY(const auto cpuid, system.SupportedCpuid());
  HF_TRY_STATUS(vcpu.SetCpuid(cpuid));
  std::unique_ptr<GuestRunner> runner(new GuestRunner(std::move(memory), std::move(vcpu)));
  runner->LayTables();
  HF_TRY_STATUS(runner->Start());
  return runner;
}

void GuestRunner::SetWord(std::uint64_t address, std::uint64_t value) const {
  std::memcpy(memory_.data() + address, &value, sizeof value);
}

std::uint64_t GuestRunner::Word(std::uint64_t address) const {
  std::uint64_t value = 0;
  std::memcpy(&value, memory_.data() + address, sizeof value);
  return value;
}

void GuestRunner::LayTables() const {
  SetWord(kPml4, kPdpt | kTable);
  for (std::uint64_t gib = 0; gib < kGiBs; ++gib) {
    const std::uint64_t directory = kDirectories + gib * kPageSize;
    SetWord(kPdpt + gib * 8, directory | kTable);
    for (std::uint64_t i = 0; i < 512; ++i)
      SetWord(directory + i * 8, (gib * kGiB + i * 2 * kMiB) | kLargePage);
  }
  SetWord(kGdt + (kCodeSelector & ~7U), 0x00affb000000ffff);
  SetWord(kGdt + (kDataSelector & ~7U), 0x00cff3000000ffff);
  // Ports by bitmap and by IOPL 3: a para-virtual KVM drops the one, an emulated CPU the other.
  SetWord(kTss + 0x60, kTssSize << 48);
  SetWord(kTss + kTssSize + kPortBitmapSize, 0xff);
  std::memcpy(memory_.data() + kProgram, kCode, sizeof kCode);
}

Status GuestRunner::Start() {
  HF_TRY(kvm_sregs sregs, vcpu_.GetSregs());
  sregs.cs = FlatSegment(kCodeSelector, 0xb, true);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = FlatSegment(kDataSelector, 0x3, false);
  sregs.tr = kvm_segment{};
  sregs.tr.selector = kTaskSelector;
  sregs.tr.base = kTss;
  sregs.tr.limit = kTssSize + kPortBitmapSize;
  sregs.tr.type = 0xb;  // a busy 64-bit TSS
  sregs.tr.present = 1;
  sregs.ldt = kvm_segment{};
  sregs.ldt.unusable = 1;
  sregs.gdt.base = kGdt;
  sregs.gdt.limit = 0x4f;
  sregs.idt.base = 0;
  sregs.idt.limit = 0;     // any exception ends the guest
  sregs.cr0 = 0x80050033;  // PG, AM, WP, NE, ET, MP, PE
  sregs.cr3 = kPml4;
  sregs.cr4 = 0x620;   // OSXMMEXCPT, OSFXSR, PAE
  sregs.efer = 0x500;  // LMA, LME
  HF_TRY_STATUS(vcpu_.SetSregs(sregs));
  return Restart();
}

Status GuestRunner::Restart() {
  kvm_regs regs{};
  regs.rip = kProgram;
  regs.rflags = 0x3002;  // IOPL 3
  return vcpu_.SetRegs(regs);
}

GuestAccess GuestRunner::Access(std::uint64_t gpa, bool write, model::Value value) {
  using End = GuestAccess::End;
  if (gpa < kFirstAddress || gpa >= kEndAddress) return {End::kError, ERANGE, 0, 0, 0};
  SetWord(kWhat, write ? 1 : 0);
  SetWord(kAddress, gpa);
  SetWord(kValue, value);
  bool mmio = false;
  while (true) {
    errno = 0;
    const auto ran = vcpu_.Run();
    const int error = errno;  // a memory fault is an exit to Run(), whichever errno came with it
    const kvm_run& run = vcpu_.run();
    if (ran && *ran == kvm::Vcpu::RunOutcome::kInterrupted) continue;
    if (ran && run.exit_reason == KVM_EXIT_IO) break;
    if (ran && run.exit_reason == KVM_EXIT_MMIO) {
      mmio = true;  // once for each of the two words; the guest goes on to its port
      continue;
    }
    GuestAccess failed{End::kError, ran ? EPROTO : ran.error().os_errno(), 0, 0, 0};
    if (run.exit_reason == kvm::abi::kExitMemoryFault) {
      const kvm::abi::MemoryFaultExit fault = vcpu_.memory_fault();
      failed = {End::kMemoryFault, error, fault.flags, fault.gpa, 0};
      if (fault.size != kPageSize) failed.error = EPROTO;
    }
    if (!Restart()) failed.error = EPROTO;
    return failed;
  }
  if (mmio) return {End::kMmio, 0, 0, 0, 0};
  if (write) return {End::kDone, 0, 0, 0, 0};
  const bool torn = Word(kFirstWord) != Word(kLastWord);
  return {torn ? End::kError : End::kDone, torn ? EILSEQ : 0, 0, 0, Word(kFirstWord)};
}

}  // namespace holdfast::conformance
