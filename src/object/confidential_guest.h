// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/address_space.h>
#include <holdfast/conversion.h>
#include <holdfast/error.h>
#include <holdfast/guest_converter.h>
#include <holdfast/kvm_system.h>
#include <holdfast/vcpu.h>
#include <holdfast/vm.h>

#include <vector>

#include "object/object.h"

namespace holdfast::object {

/// How a VM keeps memory from its host: what `-machine confidential-guest-support=ID` names. The
/// functions are called in the order in which they stand here, each once, the last also after a
/// reset of the guest.
///
/// Thread-safety: the main loop's thread, while no vCPU runs.
class ConfidentialGuest : public Object {
 public:
  using Object::Object;

  /// The type that the VM must have (KVM_CREATE_VM).
  /// @return kUnsupported with a sentence that says what this host lacks
  virtual Result<unsigned> ChooseVmType(const kvm::System& system) = 0;
  /// The VM exists, nothing is in it. @return how its memory becomes private, with which its RAM is
  ///         made; kUnsupported as above; the failed ioctl
  virtual Result<ConversionEngineKind> Initialize(kvm::Vm& vm) = 0;

  /// A guest that is loaded and ready to run.
  struct Guest {
    kvm::Vm& vm;
    /// Every page shared. Those that exist in a guest_memfd hold what Holdfast has loaded; all
    /// others are zero.
    const AddressSpace& memory;
    GuestConverter& converter;
    std::vector<const kvm::Vcpu*> vcpus;
  };
  /// Makes it the guest's own: nothing of Holdfast writes to private memory afterwards.
  virtual Status Launch(const Guest& guest) = 0;
  /// Whether a reset may load and launch the guest anew; otherwise it ends the monitor.
  virtual bool can_reset() const noexcept { return false; }

  /// A machine is built with it: it stays.
  void set_in_use() noexcept { in_use_ = true; }
  Status CanDelete() const override;

 private:
  bool in_use_ = false;
};

}  // namespace holdfast::object
