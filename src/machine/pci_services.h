// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/vm.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/thread_annotations.h"
#include "devices/pci/interrupts.h"

namespace holdfast::machine {

/// Interrupts and doorbells of PCI functions by KVM: each message has a GSI of its own in KVM's
/// routing table and reaches the guest through an irqfd, without this process; a doorbell is an
/// ioeventfd.
///
/// Thread-safety: any thread.
class PciServices final : public devices::pci::PciServices {
 public:
  /// Fills the routing table with a PC's interrupt controllers. `vm` has them already, and outlives
  /// the object.
  static Result<std::unique_ptr<PciServices>> Create(const kvm::Vm& vm);

  Result<std::unique_ptr<devices::pci::MsiRoute>> MakeMsiRoute() override HF_EXCLUDES(mutex_);
  void SetGsi(std::uint32_t gsi, bool level) noexcept override;
  Status AddDoorbell(GuestAddress address, unsigned size, std::optional<std::uint64_t> match,
                     int event_fd) override;
  void RemoveDoorbell(GuestAddress address, unsigned size, std::optional<std::uint64_t> match,
                      int event_fd) noexcept override;

 private:
  class Route;
  explicit PciServices(const kvm::Vm& vm);
  Status SetMessage(std::uint32_t gsi, const devices::pci::MsiMessage& message) HF_EXCLUDES(mutex_);
  void Release(std::uint32_t gsi) noexcept HF_EXCLUDES(mutex_);
  Status WriteTable() HF_REQUIRES(mutex_);

  const kvm::Vm& vm_;
  std::uint32_t gsis_ = 0;  // as many as the table can hold
  Mutex mutex_;
  std::vector<bool> used_ HF_GUARDED_BY(mutex_);
  std::map<std::uint32_t, devices::pci::MsiMessage> messages_ HF_GUARDED_BY(mutex_);  // by GSI
};

}  // namespace holdfast::machine
