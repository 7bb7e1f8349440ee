// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/vm.h>

#include "devices/bus.h"

namespace holdfast::machine {

/// An input of the in-kernel interrupt controllers.
class GsiLine final : public devices::InterruptLine {
 public:
  /// `vm` outlives the line.
  GsiLine(const kvm::Vm& vm, std::uint32_t gsi) noexcept : vm_(vm), gsi_(gsi) {}
  // Fails only for a GSI that KVM does not have, which the machine never asks for.
  void Set(bool level) noexcept override { (void)vm_.SetIrqLine(gsi_, level); }

 private:
  const kvm::Vm& vm_;
  const std::uint32_t gsi_;
};

}  // namespace holdfast::machine
