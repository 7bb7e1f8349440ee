// SPDX-License-Identifier: Apache-2.0
#include "kvm/kernel_mode_probe.h"

#include <holdfast/mapping.h>
#include <holdfast/units.h>
#include <holdfast/vcpu.h>
#include <holdfast/vm.h>

#include <algorithm>
#include <array>

namespace holdfast::kvm {
namespace {

// Real mode, one page at 0:
//   0f c7 0e 80 00   cmpxchg8b [0x80]   (equal: stores CX:BX's 0x42)
//   f3 0f b8 c3      popcnt ax, bx      (0x42 has two bits set; KVM's emulator has no popcnt)
//   e6 f4            out 0xf4, al
constexpr std::array<unsigned char, 11> kCode = {0x0f, 0xc7, 0x0e, 0x80, 0x00, 0xf3,
                                                 0x0f, 0xb8, 0xc3, 0xe6, 0xf4};
constexpr unsigned kPort = 0xf4;

Result<bool> Try(const Vm& vm) {
  HF_TRY(const Mapping page, Mapping::MapAnonymous(kPageSize, "a page"));
  std::ranges::transform(kCode, page.data(), [](unsigned char c) { return std::byte{c}; });

  Memslot slot;
  slot.size = kPageSize;
  slot.userspace_addr = page.address();
  HF_TRY_STATUS(vm.SetMemslot(slot));
  HF_TRY(Vcpu vcpu, Vcpu::Create(vm, 0));
  HF_TRY(kvm_sregs sregs, vcpu.GetSregs());
  sregs.cs.base = 0;
  sregs.cs.selector = 0;
  HF_TRY_STATUS(vcpu.SetSregs(sregs));
  kvm_regs regs{};
  regs.rflags = 2;
  regs.rbx = 0x42;
  HF_TRY_STATUS(vcpu.SetRegs(regs));
  HF_TRY(const Vcpu::RunOutcome outcome, vcpu.Run());
  const kvm_run& run = vcpu.run();
  const auto data = vcpu.io_data();
  const bool ran = outcome == Vcpu::RunOutcome::kExit && run.exit_reason == KVM_EXIT_IO &&
                   run.io.port == kPort && !data.empty() && data[0] == std::byte{2};
  HF_TRY_STATUS(vm.DeleteMemslot(0));
  return ran;
}

}  // namespace

bool KernelModeGuestsRun(const Vm& vm) {
  const auto ran = Try(vm);
  return ran && *ran;
}

}  // namespace holdfast::kvm
