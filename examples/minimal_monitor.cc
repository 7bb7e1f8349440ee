// SPDX-License-Identifier: Apache-2.0
// A monitor in sixty lines: one vCPU, 64 KiB of RAM in a guest_memfd, a guest of eighteen bytes.
// It needs nothing but the public headers: cmake -S examples -B build works against the installed
// package.
#include <holdfast/address_space.h>
#include <holdfast/error.h>
#include <holdfast/guest_address.h>
#include <holdfast/kvm_system.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>
#include <holdfast/vcpu.h>
#include <holdfast/vm.h>

#include <array>
#include <cstdio>
#include <span>

namespace {

using namespace holdfast;

constexpr GuestAddress kStart(0x1000);
// Real mode: prints the string behind it on port 0x3f8, byte by byte, and halts.
constexpr std::array<unsigned char, 18> kGuest = {
    0xba, 0xf8, 0x03,  //       mov dx, 0x3f8
    0xbe, 0x0f, 0x10,  //       mov si, message
    0xac,              // next: lodsb
    0x84, 0xc0,        //       test al, al
    0x74, 0x03,        //       jz done
    0xee,              //       out dx, al
    0xeb, 0xf8,        //       jmp next
    0xf4,              // done: hlt
    'h',  'i',  '\n',  // message; the RAM behind it is zero
};

Status RunGuest() {
  // /dev/kvm, a VM, and RAM for it: one inode, which the guest and we each see through a view.
  HF_TRY(kvm::System system, kvm::System::Open());
  HF_TRY(kvm::Vm vm, kvm::Vm::Create(system));
  HF_TRY(const auto ram, RamBlock::CreateGuestMemfd(vm, "ram", 64 * kKiB, /*bind=*/false));
  // Guest physical address 0 on; this makes the memslot. Guest memory is touched only through it.
  AddressSpace memory(&vm);
  HF_TRY_STATUS(memory.AddRam(GuestAddress(0), ram->size(), *ram, 0));
  HF_TRY_STATUS(memory.Write(kStart, std::as_bytes(std::span(kGuest))));

  // A vCPU starts in real mode far up in the firmware: put it on our code instead.
  HF_TRY(kvm::Vcpu vcpu, kvm::Vcpu::Create(vm, 0));
  HF_TRY(kvm_sregs sregs, vcpu.GetSregs());
  sregs.cs.base = sregs.cs.selector = 0;
  HF_TRY_STATUS(vcpu.SetSregs(sregs));
  kvm_regs regs{};
  regs.rip = kStart.value();
  regs.rflags = 2;  // the bit that is always set
  HF_TRY_STATUS(vcpu.SetRegs(regs));

  for (;;) {
    HF_TRY(const auto outcome, vcpu.Run());
    if (outcome == kvm::Vcpu::RunOutcome::kInterrupted) continue;  // a signal, nothing of ours
    const unsigned reason = vcpu.run().exit_reason;
    if (reason == KVM_EXIT_HLT) return {};
    if (reason != KVM_EXIT_IO) return Fail(Errc::kUnsupported, "the guest did something else");
    for (const std::byte byte : vcpu.io_data()) std::putchar(std::to_integer<int>(byte));
  }
}

}  // namespace

int main() {
  const Status status = RunGuest();
  if (!status) std::fprintf(stderr, "minimal_monitor: %s\n", status.error().ToString().c_str());
  return status ? 0 : 1;
}
