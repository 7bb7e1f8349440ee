// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <string>

#include "devices/device_model.h"
#include "devices/i6300esb.h"
#include "devices/pci/root_port.h"
#include "devices/pci/test_device.h"
#include "devices/scsi/scsi_models.h"
#include "devices/virtio/serial_port.h"
#include "devices/virtio/vhost_user_models.h"
#include "devices/virtio/vhost_vsock.h"
#include "devices/virtio/virtio_balloon.h"
#include "devices/virtio/virtio_blk.h"
#include "devices/virtio/virtio_net.h"
#include "devices/virtio/virtio_rng.h"
#include "devices/virtio/virtio_scsi.h"
#include "devices/virtio/virtio_serial.h"

namespace holdfast::devices {
namespace {

// By name. Each model's header declares its entry.
constexpr std::array kModels = {
    &kI6300Esb,
    &pci::kPciTestdev,
    &pci::kPcieRootPort,
    &scsi::kScsiCd,
    &scsi::kScsiHd,
    &virtio::kVhostUserBlkPci,
    &virtio::kVhostUserFsPci,
    &virtio::kVhostVsockPci,
    &virtio::kVirtioBalloonPci,
    &virtio::kVirtioBlkPci,
    &virtio::kVirtioNetPci,
    &virtio::kVirtioRngPci,
    &virtio::kVirtioScsiPci,
    &virtio::kVirtioSerialPci,
    &virtio::kVirtconsole,
    &virtio::kVirtserialport,
};

}  // namespace

std::span<const DeviceModel* const> DeviceModels() noexcept {
  return kModels;
}

const DeviceModel* FindDeviceModel(std::string_view name) noexcept {
  auto found = std::ranges::find(kModels, name, &DeviceModel::name);
  // QEMU's other name for what it has on several kinds of buses.
  if (found == kModels.end() && name.starts_with("virtio-")) {
    found = std::ranges::find(kModels, std::string(name) + "-pci", &DeviceModel::name);
  }
  return found == kModels.end() ? nullptr : *found;
}

}  // namespace holdfast::devices
