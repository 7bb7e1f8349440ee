// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "devices/device_model.h"
#include "devices/pci/test_device.h"
#include "devices/virtio/virtio_blk.h"
#include "devices/virtio/virtio_net.h"
#include "devices/virtio/virtio_rng.h"

namespace holdfast::devices {
namespace {

// By name. Each model's header declares its entry.
constexpr std::array kModels = {
    &pci::kPciTestdev,
    &virtio::kVirtioBlkPci,
    &virtio::kVirtioNetPci,
    &virtio::kVirtioRngPci,
};

}  // namespace

std::span<const DeviceModel* const> DeviceModels() noexcept {
  return kModels;
}

const DeviceModel* FindDeviceModel(std::string_view name) noexcept {
  const auto found = std::ranges::find(kModels, name, &DeviceModel::name);
  return found == kModels.end() ? nullptr : *found;
}

}  // namespace holdfast::devices
