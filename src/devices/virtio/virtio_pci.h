// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include <holdfast/error.h>

#include "devices/device_model.h"
#include "devices/pci/function.h"
#include "devices/virtio/device.h"
#include "object/keyval.h"
#include "object/property.h"

namespace holdfast::devices::virtio {

/// The properties that every virtio-…-pci device has, with QEMU's names and defaults.
struct TransportOptions {
  bool packed = false;          ///< packed=
  bool event_index = true;      ///< event_idx=
  bool indirect = true;         ///< indirect_desc=
  bool iommu_platform = false;  ///< iommu_platform=: offers VIRTIO_F_ACCESS_PLATFORM
  /// vectors=: MSI-X vectors, 0 for none; empty: one for each queue and one for the configuration
  std::optional<std::uint64_t> vectors;
};

/// Applies the values that are the transport's and returns the others.
/// @return the error for a bad value: a transitional or legacy device is one (disable-modern=on)
Result<object::KeyValues> TakeTransportOptions(const object::KeyValues& values,
                                               TransportOptions& options);
/// `own` and the transport's properties: for DeviceModel::properties.
std::vector<object::PropertyInfo> WithTransportProperties(std::vector<object::PropertyInfo> own);

/// `device` behind virtio's PCI transport, modern only (virtio 1.2, 4.1).
/// @param model  "virtio-blk-pci"
/// @param id  the user's name for it, perhaps empty
Result<std::unique_ptr<pci::Function>> MakeVirtioPci(const DeviceEnvironment& environment,
                                                     std::string_view id, std::string_view model,
                                                     const TransportOptions& options,
                                                     std::unique_ptr<Device> device);

}  // namespace holdfast::devices::virtio
