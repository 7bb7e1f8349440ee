// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "devices/pci/function.h"

namespace holdfast::devices::pci {

class PciBus;

/// A function with a type 1 header and a bus behind it.
///
/// Its windows are registers that keep what is written, no more: what lies behind is decoded
/// wherever its own BARs say. Thread-safety: as Function.
/// Spec: PCI-to-PCI Bridge 1.2, 3.2.
class Bridge : public Function {
 public:
  ~Bridge() override;

  PciBus& secondary() const noexcept { return *secondary_; }
  /// The numbers of the buses behind it, as the guest (or whoever assigned them) says.
  struct Numbers {
    std::uint8_t secondary;
    std::uint8_t subordinate;
  };
  Numbers numbers() const noexcept;

  struct Window {
    std::uint64_t base = 0;
    std::uint64_t size = 0;  ///< bytes; 0: closed
  };
  /// What firmware would do: buses and windows. Memory windows are multiples of 1 MiB, the first
  /// one below 4 GiB. Main thread.
  void Assign(std::uint8_t primary, Numbers numbers, const Window& memory, const Window& prefetch,
              const Window& io) noexcept;

  /// Whether functions come and go behind it while the guest runs.
  virtual bool hotplug() const noexcept { return false; }
  /// The slot's occupant came, or the guest shall let it go. Main thread.
  virtual void OccupantCame() noexcept {}
  virtual void RequestRemoval() noexcept {}
  /// Whether the guest is just taking an occupant in or letting one go, and cannot be asked: its
  /// power indicator blinks. Any thread.
  virtual bool busy() const noexcept { return false; }
  /// The occupant is gone.
  virtual void OccupantWent() noexcept {}
  /// What to do on the main thread when the guest has let the occupant go. Set before the guest
  /// runs.
  void set_released(std::function<void()> released) { released_ = std::move(released); }
  /// The same when the guest was asked and keeps the occupant. At most once for each request.
  void set_refused(std::function<void()> refused) { refused_ = std::move(refused); }

 protected:
  /// @param bus_name  what `bus=` calls the bus behind it
  Bridge(PciServices& services, const Identity& identity, std::string bus_name);
  const std::function<void()>& released() const noexcept { return released_; }
  const std::function<void()>& refused() const noexcept { return refused_; }

 private:
  std::unique_ptr<PciBus> secondary_;
  std::function<void()> released_;
  std::function<void()> refused_;
};

}  // namespace holdfast::devices::pci
