// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string_view>

#include <holdfast/error.h>

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

/// An address space of devices: I/O ports or MMIO. Filled while the machine is built, read-only
/// while vCPUs run, hence no lock.
class Bus {
 public:
  /// Maps `device` at [base, base + size); an access at `base` reaches it with the offset
  /// `device_offset`. The device must outlive the bus. Fails if the range is empty, wraps or meets
  /// another one.
  Status Map(std::uint64_t base, std::uint64_t size, BusDevice& device,
             std::uint64_t device_offset = 0);

  /// One access. An address nobody mapped reads as all ones and swallows writes; so does an
  /// access that leaves the range it starts in. Returns false for those.
  bool Read(std::uint64_t address, std::span<std::byte> data) const noexcept;
  bool Write(std::uint64_t address, std::span<const std::byte> data) const noexcept;

  /// Calls fn(base, size, device) in ascending order: for `info mtree`-like listings.
  template <typename Fn>
  void ForEach(Fn&& fn) const {
    for (const auto& [base, range] : ranges_) fn(base, range.size, *range.device);
  }

 private:
  struct Range {
    std::uint64_t size;
    BusDevice* device;  // not owned; outlives the bus
    std::uint64_t device_offset;
  };
  /// The range that holds all of [address, address + length), or null; *offset is the device's.
  const Range* Find(std::uint64_t address, std::size_t length,
                    std::uint64_t* offset) const noexcept;

  std::map<std::uint64_t, Range> ranges_;
};

}  // namespace holdfast::devices
