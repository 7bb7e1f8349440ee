// SPDX-License-Identifier: Apache-2.0
#include "devices/bus.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include <holdfast/units.h>

namespace holdfast::devices {

Status Bus::Map(std::uint64_t base, std::uint64_t size, BusDevice& device,
                std::uint64_t device_offset) {
  if (size == 0)
    return Fail(Errc::kInvalidArgument,
                fmt::format("{}: empty range at {:#x}", device.name(), base));
  if (!CheckedAdd(base, size - 1) || !CheckedAdd(device_offset, size - 1)) {
    return Fail(Errc::kInvalidArgument, fmt::format("{}: the range of {:#x} bytes at {:#x} wraps",
                                                    device.name(), size, base));
  }
  const std::uint64_t last = base + (size - 1);
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
  ranges_.emplace(base, Range{size, &device, device_offset});
  return {};
}

const Bus::Range* Bus::Find(std::uint64_t address, std::size_t length,
                            std::uint64_t* offset) const noexcept {
  const auto next = ranges_.upper_bound(address);
  if (next == ranges_.begin()) return nullptr;
  const auto& [base, range] = *std::prev(next);
  if (!RangeFits(address - base, length, range.size)) return nullptr;
  *offset = range.device_offset + (address - base);
  return &range;
}

bool Bus::Read(std::uint64_t address, std::span<std::byte> data) const noexcept {
  std::uint64_t offset = 0;
  const Range* range = Find(address, data.size(), &offset);
  if (range == nullptr) {
    std::ranges::fill(data, std::byte{0xff});
    return false;
  }
  range->device->Read(offset, data);
  return true;
}

bool Bus::Write(std::uint64_t address, std::span<const std::byte> data) const noexcept {
  std::uint64_t offset = 0;
  const Range* range = Find(address, data.size(), &offset);
  if (range == nullptr) return false;
  range->device->Write(offset, data);
  return true;
}

}  // namespace holdfast::devices
