// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include <holdfast/error.h>
#include <holdfast/guest_address.h>

namespace holdfast::devices::pci {

/// What a message-signalled interrupt writes (PCI Local Bus 3.0, 6.8; Intel SDM 3, 11.11).
struct MsiMessage {
  std::uint64_t address = 0;
  std::uint32_t data = 0;
  bool operator==(const MsiMessage&) const = default;
};

/// One message-signalled interrupt's way into the guest: an eventfd that KVM turns into a message.
///
/// While disconnected (masked), triggers stay in the eventfd and are delivered on connecting.
/// Thread-safety: Trigger() and event_fd() on any thread; the rest under the owner's lock.
class MsiRoute {
 public:
  MsiRoute() = default;
  MsiRoute(const MsiRoute&) = delete;
  MsiRoute& operator=(const MsiRoute&) = delete;
  virtual ~MsiRoute() = default;

  /// Sets what is sent from now on.
  virtual Status SetMessage(const MsiMessage& message) = 0;
  virtual Status Connect(bool on) = 0;
  virtual void Trigger() noexcept = 0;
  /// Writing 1 to it is Trigger(): for vhost and other processes. Never changes.
  virtual int event_fd() const noexcept = 0;
  /// Whether a trigger waits for Connect(true).
  virtual bool pending() const noexcept = 0;
};

/// What functions ask of the machine: the machine implements it with KVM's interrupt routing,
/// irqfd and ioeventfd; tests with plain eventfds.
class PciServices {
 public:
  PciServices() = default;
  PciServices(const PciServices&) = delete;
  PciServices& operator=(const PciServices&) = delete;
  virtual ~PciServices() = default;

  virtual Result<std::unique_ptr<MsiRoute>> MakeMsiRoute() = 0;
  /// The level of a global system interrupt that INTx lines share; the host bridge counts. Any
  /// thread.
  virtual void SetGsi(std::uint32_t gsi, bool level) noexcept = 0;
  /// From now on a guest write of `size` bytes (0: any size) at `address` counts up `event_fd`
  /// instead of coming to WriteBar(). Only a shortcut: where it fails, WriteBar() is called.
  /// Any thread.
  virtual Status AddDoorbell(GuestAddress address, unsigned size,
                             std::optional<std::uint64_t> match, int event_fd) = 0;
  virtual void RemoveDoorbell(GuestAddress address, unsigned size,
                              std::optional<std::uint64_t> match, int event_fd) noexcept = 0;
};

}  // namespace holdfast::devices::pci
