// SPDX-License-Identifier: Apache-2.0
#include "devices/device_request.h"

#include <fmt/format.h>

namespace holdfast::devices {
namespace {

using object::PropertyInfo;
using object::PropertyType;

constexpr PropertyInfo kAddr{
    .name = "addr",
    .type = PropertyType::kString,
    .description = "Slot and optional function number, example: 06.0 or 06"};
constexpr PropertyInfo kMultifunction{.name = "multifunction",
                                      .type = PropertyType::kBool,
                                      .default_text = "off",
                                      .description = "more functions may be in the same slot"};

bool IsOnPci(const DeviceModel& model) {
  return model.bus_type == kPciBusType;
}

}  // namespace

Result<DeviceRequest> ParseDeviceRequest(const DeviceModel& model,
                                         const object::KeyValues& values) {
  DeviceRequest request;
  request.model = &model;
  for (const object::KeyValue& entry : values) {
    if (entry.key == "id") {
      if (!object::IsWellFormedId(entry.value)) {
        return Fail(Errc::kInvalidArgument, "Parameter 'id' expects an identifier",
                    "Identifiers consist of letters, digits, '-', '.', '_', starting with a "
                    "letter.");
      }
      request.id = entry.value;
    } else if (entry.key == "bus") {
      request.bus = entry.value;
    } else if (entry.key == "addr" && IsOnPci(model)) {
      request.address = pci::ParseSlotFunction(entry.value);
      if (!request.address) {
        return Fail(
            Errc::kInvalidArgument,
            fmt::format("Property '{}.addr' doesn't take value '{}'", model.name, entry.value),
            "Write SLOT or SLOT.FUNCTION in hexadecimal: slots 0 to 1f, functions 0 to 7.");
      }
    } else if (entry.key == "multifunction" && IsOnPci(model)) {
      HF_TRY(const object::PropertyValue value, object::ParseProperty(kMultifunction, entry.value));
      request.multifunction = std::get<bool>(value);
    } else {
      request.values.push_back(entry);
    }
  }
  HF_TRY_STATUS(model.check(request.values));
  return request;
}

std::string DescribeDevice(const DeviceModel& model) {
  std::string text = std::string(model.name) + " options:\n";
  if (IsOnPci(model)) {
    text += object::DescribeProperty(kAddr);
    text += object::DescribeProperty(kMultifunction);
  }
  for (const PropertyInfo& property : model.properties()) text += DescribeProperty(property);
  return text;
}

}  // namespace holdfast::devices
