// SPDX-License-Identifier: Apache-2.0
#include "devices/debug_exit.h"

#include <algorithm>

namespace holdfast::devices {

void DebugExit::Read(std::uint64_t /*offset*/, std::span<std::byte> data) noexcept {
  std::ranges::fill(data, std::byte{0});
}

void DebugExit::Write(std::uint64_t /*offset*/, std::span<const std::byte> data) noexcept {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < std::min<std::size_t>(data.size(), sizeof value); ++i)
    value |= std::to_integer<std::uint32_t>(data[i]) << (8 * i);
  // The shift may wrap; the operating system keeps eight bits of a status anyway.
  if (callback_) callback_(static_cast<int>((value << 1) | 1));
}

}  // namespace holdfast::devices
