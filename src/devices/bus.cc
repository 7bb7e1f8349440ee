// SPDX-License-Identifier: Apache-2.0
#include "devices/bus.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include <holdfast/units.h>

namespace holdfast::devices {

Status Bus::Map(std::uint64_t base, std::uint64_t size, BusDevice& device,
                std::uint64_t device_offset, std::uint64_t overhang) {
  if (size == 0)
    return Fail(Errc::kInvalidArgument,
                fmt::format("{}: empty range at {:#x}", device.name(), base));
  if (!CheckedAdd(base, size - 1) || !CheckedAdd(device_offset, size - 1)) {
    return Fail(Errc::kInvalidArgument, fmt::format("{}: the range of {:#x} bytes at {:#x} wraps",
                                                    device.name(), size, base));
  }
  const std::uint64_t last = base + (size - 1);
  const WriterLock lock(mutex_);
  const auto next = ranges_.lower_bound(base);
  const auto meets = [&](std::uint64_t other, const Range& range) -> Status {
    return Fail(Errc::kInvalidArgument,
                fmt::format("{} at [{:#x}, {:#x}] meets {} at [{:#x}, {:#x}]", device.name(), base,
                            last, range.device->name(), other, other + (range.size - 1)));
  };
  if (next != ranges_.end() && next->first <= last) return meets(next->first, next->second);
  if (next != ranges_.begin()) {
    const auto& [other, range] = *std::prev(next);
    if (base - other < range.size) return meets(other, range);
  }
  ranges_.emplace(base, Range{size, &device, device_offset, overhang});
  return {};
}

bool Bus::Unmap(std::uint64_t base) {
  const WriterLock lock(mutex_);
  return ranges_.erase(base) != 0;
}

std::optional<Bus::Target> Bus::Find(std::uint64_t address, std::size_t length) const noexcept {
  const ReaderLock lock(mutex_);
  const auto next = ranges_.upper_bound(address);
  if (next == ranges_.begin()) return std::nullopt;
  const auto& [base, range] = *std::prev(next);
  if (address - base >= range.size ||
      !RangeFits(address - base, length, range.size + range.overhang))
    return std::nullopt;
  return Target{range.device, range.device_offset + (address - base)};
}

bool Bus::Read(std::uint64_t address, std::span<std::byte> data) const noexcept {
  const auto target = Find(address, data.size());
  if (!target) {
    std::ranges::fill(data, std::byte{0xff});
    return false;
  }
  target->device->Read(target->offset, data);
  return true;
}

bool Bus::Write(std::uint64_t address, std::span<const std::byte> data) const noexcept {
  const auto target = Find(address, data.size());
  if (!target) return false;
  target->device->Write(target->offset, data);
  return true;
}

}  // namespace holdfast::devices
