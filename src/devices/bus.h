// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string_view>

#include <holdfast/error.h>

#include "base/thread_annotations.h"

namespace holdfast::devices {

/// A device behind I/O ports or a memory-mapped range.
///
/// Offsets are relative to the range the device was mapped at, plus the `device_offset` of that
/// range: that is how a device with several ranges tells them apart. Guest input cannot fail: an
/// access the device does not know reads as all ones and writes nothing. Thread-safety: Read and
/// Write come from any vCPU thread, several at once; a device locks itself.
class BusDevice {
 public:
  BusDevice() = default;
  BusDevice(const BusDevice&) = delete;
  BusDevice& operator=(const BusDevice&) = delete;
  virtual ~BusDevice() = default;

  virtual std::string_view name() const noexcept = 0;
  /// Fills all of `data` (1, 2, 4 or 8 bytes).
  virtual void Read(std::uint64_t offset, std::span<std::byte> data) noexcept = 0;
  virtual void Write(std::uint64_t offset, std::span<const std::byte> data) noexcept = 0;
  /// Back to power-on state. The vCPUs stand still.
  virtual void Reset() noexcept = 0;
};

/// An interrupt line of a device; level or edge is the controller's business.
class InterruptLine {
 public:
  InterruptLine() = default;
  InterruptLine(const InterruptLine&) = delete;
  InterruptLine& operator=(const InterruptLine&) = delete;
  virtual ~InterruptLine() = default;
  /// Any thread.
  virtual void Set(bool level) noexcept = 0;
};

/// An address space of devices: I/O ports or MMIO. Ranges come and go while vCPUs run: a guest may
/// move the BARs of PCI functions.
///
/// Thread-safety: any thread. No lock is held while a device is called, so that a device may map
/// and unmap ranges during an access; and an access may still arrive at a device just after its
/// range was unmapped. A device is destroyed only while no vCPU runs.
class Bus {
 public:
  Bus() = default;
  Bus(const Bus&) = delete;
  Bus& operator=(const Bus&) = delete;

  /// Maps `device` at [base, base + size); an access at `base` reaches it with the offset
  /// `device_offset`. Fails if the range is empty, wraps or meets another one.
  /// @param overhang  an access that starts in the range may end so many bytes behind it, where
  ///     another device may be: a PC has a port inside the four bytes of another register
  Status Map(std::uint64_t base, std::uint64_t size, BusDevice& device,
             std::uint64_t device_offset = 0, std::uint64_t overhang = 0) HF_EXCLUDES(mutex_);
  /// Takes the range that starts at `base` away. @return whether there was one
  bool Unmap(std::uint64_t base) HF_EXCLUDES(mutex_);

  /// One access. An address nobody mapped reads as all ones and swallows writes; so does an
  /// access that leaves the range it starts in. Returns false for those.
  bool Read(std::uint64_t address, std::span<std::byte> data) const noexcept HF_EXCLUDES(mutex_);
  bool Write(std::uint64_t address, std::span<const std::byte> data) const noexcept
      HF_EXCLUDES(mutex_);

  /// Calls fn(base, size, device) in ascending order: for `info mtree`-like listings.
  template <typename Fn>
  void ForEach(Fn&& fn) const HF_EXCLUDES(mutex_) {
    std::map<std::uint64_t, Range> ranges;
    {
      const ReaderLock lock(mutex_);
      ranges = ranges_;
    }
    for (const auto& [base, range] : ranges) fn(base, range.size, *range.device);
  }

 private:
  struct Range {
    std::uint64_t size;
    BusDevice* device;  // not owned
    std::uint64_t device_offset;
    std::uint64_t overhang;
  };
  struct Target {
    BusDevice* device;
    std::uint64_t offset;
  };
  /// Who answers for all of [address, address + length).
  std::optional<Target> Find(std::uint64_t address, std::size_t length) const noexcept
      HF_EXCLUDES(mutex_);

  mutable SharedMutex mutex_;
  std::map<std::uint64_t, Range> ranges_ HF_GUARDED_BY(mutex_);
};

}  // namespace holdfast::devices
