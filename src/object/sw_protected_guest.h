// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "object/confidential_guest.h"

namespace holdfast::object {

/// How pages are converted, in the order of the property's words.
enum class ConversionChoice : std::uint8_t { kAuto, kKernel, kGuard, kAttributes };

/// `sw-protected-guest`: private memory without encryption, on any machine. What is private, no
/// code of this program can reach. The kernel's own type of such VMs (CONFIG_KVM_SW_PROTECTED_VM)
/// is used where it converts in place, or where two layers are asked for; else an ordinary VM with
/// guard pages is.
class SwProtectedGuest final : public ConfidentialGuest {
 public:
  static const ObjectType kType;
  struct Settings {
    ConversionChoice conversion = ConversionChoice::kAuto;
    /// off: two layers, as QEMU does it; the same as conversion=attributes.
    bool convert_in_place = true;
    MemoryAttribute initial = MemoryAttribute::kShared;
  };

  using ConfidentialGuest::ConfidentialGuest;
  const ObjectType& type() const noexcept override { return kType; }
  Status Complete() override;
  Settings& own() noexcept { return own_; }
  const Settings& own() const noexcept { return own_; }

  Result<unsigned> ChooseVmType(const kvm::System& system) override;
  Result<ConversionEngineKind> Initialize(kvm::Vm& /*vm*/) override { return engine_; }
  Status Launch(const Guest& guest) override;
  bool can_reset() const noexcept override { return true; }

 private:
  Settings own_;
  ConversionEngineKind engine_ = ConversionEngineKind::kGuard;  // ChooseVmType's answer
};

}  // namespace holdfast::object
