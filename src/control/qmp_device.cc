// SPDX-License-Identifier: Apache-2.0
// device_add, device_del, and the event when a device is gone.
#include <fmt/format.h>

#include "control/human_commands.h"
#include "control/qmp_commands.h"
#include "devices/device_request.h"
#include "machine/machine.h"
#include "object/keyval.h"

namespace holdfast::control {
namespace {

Status AddDevice(VmContext& vm, object::KeyValues values) {
  const std::string* driver = object::FindValue(values, "driver");
  if (driver == nullptr) return Fail(Errc::kInvalidArgument, "Parameter 'driver' is missing");
  const devices::DeviceModel* model = devices::FindDeviceModel(*driver);
  if (model == nullptr) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("'{}' is not a valid device model name", *driver));
  }
  std::erase_if(values, [](const object::KeyValue& entry) { return entry.key == "driver"; });
  HF_TRY(const devices::DeviceRequest request, devices::ParseDeviceRequest(*model, values));
  return vm.machine().AddDevice(request);
}

QmpResult DeviceAdd(VmContext& vm, const Json& arguments) {
  HF_QMP_TRY(object::KeyValues values, object::ParseJsonKeyValues(arguments.dump()));
  HF_QMP_TRY_STATUS(AddDevice(vm, std::move(values)));
  return Json::object();
}

// QEMU takes the device's path too.
std::string_view IdOf(std::string_view name) {
  constexpr std::string_view kPeripheral = "/machine/peripheral/";
  if (name.starts_with(kPeripheral)) name.remove_prefix(kPeripheral.size());
  return name;
}

QmpResult DeviceDel(VmContext& vm, const Json& arguments) {
  const Status removed =
      vm.machine().RemoveDevice(IdOf(arguments["id"].get_ref<const std::string&>()));
  if (removed) return Json::object();
  if (removed.error().code() == Errc::kNotFound)
    return QmpFail(QmpErrorClass::kDeviceNotFound, removed.error().message());
  return tl::unexpected<QmpError>(removed.error());
}

}  // namespace

void DefineDeviceCommands(Schema& schema) {
  schema.Struct("DeviceAddArguments", {{"driver", "str"}, {"bus?", "str"}, {"id?", "str"}});
  // Its further arguments are the model's.
  schema.AddCommand("device_add",
                    {.arguments = "DeviceAddArguments", .more_arguments = true, .run = DeviceAdd});
  schema.Struct("DeviceDelArguments", {{"id", "str"}});
  schema.AddCommand("device_del", {.arguments = "DeviceDelArguments", .run = DeviceDel});
  schema.Struct("DeviceDeletedData", {{"device?", "str"}, {"path", "str"}});
  schema.AddEvent("DEVICE_DELETED", "DeviceDeletedData");
  schema.Struct("DeviceUnplugGuestErrorData", {{"device?", "str"}, {"path", "str"}});
  schema.AddEvent("DEVICE_UNPLUG_GUEST_ERROR", "DeviceUnplugGuestErrorData");
}

Result<std::string> HumanCommands::DeviceAdd(std::string_view arguments) {
  HF_TRY(object::KeyValues values, object::ParseKeyValues(arguments, "driver"));
  HF_TRY_STATUS(AddDevice(context_, std::move(values)));
  return std::string();
}

Result<std::string> HumanCommands::DeviceDel(std::string_view arguments) {
  HF_TRY_STATUS(context_.machine().RemoveDevice(IdOf(arguments)));
  return std::string();
}

}  // namespace holdfast::control
