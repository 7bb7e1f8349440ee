// SPDX-License-Identifier: Apache-2.0
#include "devices/pvpanic.h"

#include <algorithm>

namespace holdfast::devices {

void Pvpanic::Read(std::uint64_t offset, std::span<std::byte> data) noexcept {
  std::ranges::fill(data, std::byte{0xff});
  if (offset == 0 && !data.empty()) data[0] = std::byte{events_};
}

void Pvpanic::Write(std::uint64_t offset, std::span<const std::byte> data) noexcept {
  if (offset != 0 || data.empty() || !callback_) return;
  const auto value = std::to_integer<std::uint8_t>(data[0]);
  // One event a write, as in QEMU: the graver one.
  for (const Event event : {Event::kPanicked, Event::kCrashLoaded}) {
    const auto bit = static_cast<std::uint8_t>(event);
    if ((value & bit) == 0) continue;
    if ((events_ & bit) != 0) callback_(event);
    return;
  }
}

}  // namespace holdfast::devices
