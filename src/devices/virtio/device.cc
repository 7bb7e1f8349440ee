// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/device.h"

#include <algorithm>

namespace holdfast::devices::virtio {

bool Device::Accepts(std::uint64_t) const noexcept {
  return true;
}

void Device::ReadConfig(std::uint64_t, std::span<std::byte> data) noexcept {
  std::ranges::fill(data, std::byte{0});
}

void Device::WriteConfig(std::uint64_t, std::span<const std::byte>) noexcept {}

void Device::SetRunning(bool) noexcept {}

void Device::VisitState(state::Fields&) {}

Status Device::Migratable() const {
  return {};
}

}  // namespace holdfast::devices::virtio
