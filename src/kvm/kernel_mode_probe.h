// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace holdfast::kvm {

class Vm;

/// Whether guest code in ring 0 runs on the processor. A para-virtual KVM emulates it instead and
/// gives up at instructions its emulator lacks; no stock kernel boots there. Tried with a guest of
/// one page that executes such an instruction. Uses memslot 0 of `vm` and its vCPU 0.
bool KernelModeGuestsRun(const Vm& vm);

}  // namespace holdfast::kvm
