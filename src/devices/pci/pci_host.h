// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string_view>

#include <holdfast/error.h>

#include "base/state.h"
#include "base/thread_annotations.h"
#include "devices/bus.h"
#include "devices/pci/pci_bus.h"

namespace holdfast::devices::pci {

/// A range of addresses or ports.
struct AddressRange {
  std::uint64_t base = 0;
  std::uint64_t size = 0;
};

/// Where BARs may lie; the guest is told the same.
struct Windows {
  AddressRange io;
  AddressRange memory32;
  AddressRange memory64;  ///< size 0: there is none
};

/// The root complex: `pcie.0` with its host bridge (that of QEMU's q35) at 00.0, the ways to
/// configuration space, the wiring of INTx, and the BARs of all functions on the buses.
///
/// Thread-safety: built, changed, reset and destroyed on the main thread while no vCPU runs; vCPU
/// threads come in through the two buses.
class PciHost {
 public:
  static constexpr std::uint64_t kEcamSize = 256ULL << 20;  ///< 256 buses
  /// INTA# of slot 0 is wired to this GSI, those of other slots and pins to this and the next
  /// three, in turn.
  static constexpr std::uint32_t kFirstGsi = 16;
  static constexpr std::uint32_t kGsis = 4;
  static constexpr std::string_view kRootBus = "pcie.0";

  /// The GSI of a pin (0 is INTA#) of a slot on the root bus.
  static constexpr std::uint32_t GsiOf(unsigned slot, unsigned pin) noexcept {
    return kFirstGsi + (slot + pin) % kGsis;
  }

  /// @param services, io, mmio  outlive the host
  static Result<std::unique_ptr<PciHost>> Create(PciServices& services, Bus& io, Bus& mmio,
                                                 GuestAddress ecam, const Windows& windows);
  PciHost(const PciHost&) = delete;
  PciHost& operator=(const PciHost&) = delete;
  ~PciHost();

  PciBus& root() noexcept { return root_; }
  const Windows& windows() const noexcept { return windows_; }
  /// The bus of that name, or null.
  PciBus* FindBus(std::string_view name);
  /// Who has this id, and on which bus.
  struct Found {
    PciBus* bus = nullptr;
    PciBus::Occupant* occupant = nullptr;
  };
  Found FindById(std::string_view id);
  /// Calls fn(PciBus&, Occupant&) for every function, those behind a bridge right after it.
  void ForEach(const std::function<void(PciBus&, PciBus::Occupant&)>& fn);

  /// Puts a function on `bus`. @return kInvalidArgument as QEMU words it (PciBus::Choose)
  Result<PciBus::Occupant*> Add(PciBus& bus, Placement placement,
                                std::unique_ptr<Function> function);
  /// Takes a function away and destroys it.
  void Remove(PciBus& bus, SlotFunction where);

  /// Gives every BAR and bridge without a place one, as firmware would. What does not fit its
  /// window stays without one, with a warning.
  void AssignResources();
  /// All functions to power-on state; AssignResources() follows.
  void Reset() noexcept;
  /// Saves or loads what the host itself remembers: the address port. Functions have sections of
  /// their own.
  void VisitState(state::Fields& fields);

 private:
  class Ports;
  class Ecam;
  PciHost(PciServices& services, Bus& io, Bus& mmio, const Windows& windows);
  Function* Find(unsigned bus, unsigned slot, unsigned function) const noexcept;
  void Move(BarDevice& bar, bool io, std::optional<GuestAddress> where, std::uint64_t size)
      HF_EXCLUDES(moves_);
  void SetIntx(std::uint32_t gsi, bool level) HF_EXCLUDES(intx_mutex_);

  PciServices& services_;
  Bus& io_;
  Bus& mmio_;
  const Windows windows_;

  struct Decoded {
    bool io;
    std::uint64_t base;
    std::uint64_t size;
    bool mapped;  // not while it lies on top of something else
  };
  Mutex moves_;
  std::map<BarDevice*, Decoded> decoded_ HF_GUARDED_BY(moves_);
  Mutex intx_mutex_;
  std::array<unsigned, kGsis> intx_count_ HF_GUARDED_BY(intx_mutex_){};

  std::unique_ptr<Ports> ports_;
  std::unique_ptr<Ecam> ecam_;
  PciBus root_;  // last: its functions use the above
};

}  // namespace holdfast::devices::pci
