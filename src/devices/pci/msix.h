// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <holdfast/error.h>

#include "base/state.h"
#include "base/thread_annotations.h"
#include "devices/pci/interrupts.h"

namespace holdfast::devices::pci {

/// The table and the pending bits of MSI-X, and the ways the messages take.
///
/// A way (MsiRoute) is made when its vector is first needed: eventfds and KVM's interrupt routes
/// are scarce, and a device offers more vectors than a driver uses. A vector whose way the host
/// refuses stays silent, with a message in the log.
/// Thread-safety: any thread. Spec: PCI Local Bus 3.0, 6.8.2.
class Msix {
 public:
  struct Place {
    unsigned bar;
    std::uint32_t table;  // offsets in the BAR
    std::uint32_t pending;
  };
  /// `services` outlives the object. `vectors` is 1 to kMsixMostVectors.
  Msix(PciServices& services, unsigned vectors, const Place& place);

  unsigned vectors() const noexcept { return static_cast<unsigned>(routes_.size()); }
  /// Whether [offset, offset + size) of `bar` touches table or pending bits.
  bool Holds(unsigned bar, std::uint64_t offset, std::size_t size) const noexcept;
  /// Aligned accesses of 4 or 8 bytes; others read as all ones and write nothing.
  void Read(std::uint64_t offset, std::span<std::byte> data) noexcept HF_EXCLUDES(mutex_);
  void Write(std::uint64_t offset, std::span<const std::byte> data) noexcept HF_EXCLUDES(mutex_);
  /// What the capability's message control says.
  void Control(bool enabled, bool masked) noexcept HF_EXCLUDES(mutex_);
  bool enabled() const noexcept HF_EXCLUDES(mutex_);
  bool Trigger(unsigned vector) noexcept HF_EXCLUDES(mutex_);
  Result<int> EventFd(unsigned vector) HF_EXCLUDES(mutex_);
  /// Power-on state: disabled, all vectors masked, nothing pending.
  void Reset() noexcept HF_EXCLUDES(mutex_);
  /// Saves or loads table and pending bits. Loading needs the power-on state; Control() comes after
  /// it.
  void VisitState(state::Fields& fields) HF_EXCLUDES(mutex_);

 private:
  struct Entry {
    std::uint32_t address_low = 0;
    std::uint32_t address_high = 0;
    std::uint32_t data = 0;
    std::uint32_t control = 1;  // bit 0: masked
  };
  // A vector as it is saved.
  struct Saved {
    Entry entry;
    bool pending = false;
  };
  bool Open(unsigned vector) const noexcept HF_REQUIRES(mutex_);
  void Update(unsigned vector) noexcept HF_REQUIRES(mutex_);
  Result<MsiRoute*> Route(unsigned vector) HF_REQUIRES(mutex_);
  std::uint32_t ReadWord(std::uint64_t offset) noexcept HF_REQUIRES(mutex_);
  void WriteWord(std::uint64_t offset, std::uint32_t value) noexcept HF_REQUIRES(mutex_);

  PciServices& services_;
  const Place place_;
  mutable Mutex mutex_;
  bool enabled_ HF_GUARDED_BY(mutex_) = false;
  bool masked_ HF_GUARDED_BY(mutex_) = false;
  bool told_ HF_GUARDED_BY(mutex_) = false;  // that the host refuses
  std::vector<Entry> entries_ HF_GUARDED_BY(mutex_);
  std::vector<bool> connected_ HF_GUARDED_BY(mutex_);
  std::vector<std::unique_ptr<MsiRoute>> routes_;  // its size is constant
};

}  // namespace holdfast::devices::pci
