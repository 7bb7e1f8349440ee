// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include <holdfast/error.h>

#include "devices/device_model.h"
#include "devices/pci/pci_bus.h"
#include "object/keyval.h"

namespace holdfast::devices {

/// One `-device` or `device_add`, checked for form.
struct DeviceRequest {
  const DeviceModel* model = nullptr;
  std::string id;   ///< empty: it has none, and cannot be taken away
  std::string bus;  ///< empty: the first of the model's kind
  std::optional<pci::SlotFunction> address;
  bool multifunction = false;
  object::KeyValues values;  ///< what belongs to the model itself
};

/// Sorts the words of a device out and lets the model judge its own. `values` has no `driver`.
/// @return kInvalidArgument as QEMU words it; or what DeviceModel::check says
Result<DeviceRequest> ParseDeviceRequest(const DeviceModel& model, const object::KeyValues& values);

/// What `-device MODEL,help` prints.
std::string DescribeDevice(const DeviceModel& model);

}  // namespace holdfast::devices
