// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "apps/options_parse.h"
#include "devices/device_model.h"
#include "devices/device_request.h"
#include "object/property.h"
#include "object/suggest.h"

namespace holdfast::apps {
namespace {

using machine::DebugExitConfig;
using machine::PvpanicConfig;
using machine::VmgenidConfig;
using object::KeyValues;
using object::Property;
using object::PropertyType;

constexpr Property<DebugExitConfig> kDebugExitProperties[] = {
    {{.name = "iobase",
      .type = PropertyType::kUint,
      .default_text = "0x501",
      .description = "first I/O port",
      .max = 0xffff},
     object::SetField<&DebugExitConfig::iobase>},
    {{.name = "iosize",
      .type = PropertyType::kUint,
      .default_text = "2",
      .description = "number of I/O ports",
      .max = 8},
     object::SetField<&DebugExitConfig::iosize>},
};

constexpr Property<PvpanicConfig> kPvpanicProperties[] = {
    {{.name = "ioport",
      .type = PropertyType::kUint,
      .default_text = "0x505",
      .description = "the I/O port",
      .max = 0xffff},
     object::SetField<&PvpanicConfig::ioport>},
    {{.name = "events",
      .type = PropertyType::kUint,
      .default_text = "3",
      .description = "mask of events the guest may report: 1 panicked, 2 crash kernel loaded",
      .max = 3},
     object::SetField<&PvpanicConfig::events>},
};

Status SetGuid(VmgenidConfig& config, const object::PropertyValue& value) {
  config.guid = std::get<std::string>(value);
  if (config.guid == "auto") return {};
  HF_TRY(config.guid, ReadUuid(config.guid));
  return {};
}
constexpr Property<VmgenidConfig> kVmgenidProperties[] = {
    {{.name = "guid",
      .default_text = "auto",
      .description = "the VM's generation, a UUID; auto is a random one"},
     SetGuid},
};

// `driver` is read by the caller; `id` names the device and is checked, nothing more.
template <typename Config>
Result<Config> ParseConfig(std::span<const Property<Config>> table, const KeyValues& values) {
  Config config;
  for (const object::KeyValue& entry : values) {
    if (entry.key == "driver") continue;
    if (entry.key == "id") {
      if (object::IsWellFormedId(entry.value)) continue;
      return Fail(Errc::kInvalidArgument, "Parameter 'id' expects an identifier",
                  "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.");
    }
    HF_TRY_STATUS(object::SetProperty<Config>(table, {}, config, entry));
  }
  return config;
}

Status AddDebugExit(Options& options, const KeyValues& values) {
  HF_TRY(const DebugExitConfig config, ParseConfig<DebugExitConfig>(kDebugExitProperties, values));
  if (config.iosize == 0 || config.iobase + config.iosize > 0x10000) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("I/O ports 0x{:x} and the {} behind it are not all ports",
                            config.iobase, config.iosize),
                "Ports are 0 to 0xffff; iosize is at least 1.");
  }
  options.machine.debug_exit = config;
  return {};
}

Status AddPvpanic(Options& options, const KeyValues& values) {
  HF_TRY(options.machine.pvpanic, ParseConfig<PvpanicConfig>(kPvpanicProperties, values));
  return {};
}

// A device on a bus; the machine makes it when everything that it may name is there.
Status AddDevice(Options& options, const devices::DeviceModel& model, KeyValues values) {
  if (object::WantsHelp(values)) {
    options.print = devices::DescribeDevice(model);
    return {};
  }
  std::erase_if(values, [](const object::KeyValue& entry) { return entry.key == "driver"; });
  HF_TRY(devices::DeviceRequest request, devices::ParseDeviceRequest(model, values));
  const bool taken = !request.id.empty() &&
                     std::ranges::any_of(options.machine.devices,
                                         [&](const auto& other) { return other.id == request.id; });
  if (taken) {
    return Fail(Errc::kInvalidArgument, fmt::format("Duplicate ID '{}' for device", request.id),
                "Each device has an id of its own.");
  }
  options.machine.devices.push_back(std::move(request));
  return {};
}

Status AddVmgenid(Options& options, const KeyValues& values) {
  if (options.machine.vmgenid) {
    return Fail(Errc::kInvalidArgument, "at most one vmgenid device is permitted",
                "Leave the second one out.");
  }
  HF_TRY(options.machine.vmgenid, ParseConfig<VmgenidConfig>(kVmgenidProperties, values));
  return {};
}

struct DeviceModel {
  std::string_view name;
  std::string_view description;
  Status (*add)(Options& options, const KeyValues& values);
  std::string (*help)();
  std::vector<object::PropertyInfo> (*properties)();
};
template <typename Config>
std::vector<object::PropertyInfo> InfoOf(std::span<const Property<Config>> table) {
  return {table.begin(), table.end()};
}
constexpr DeviceModel kModels[] = {
    {"isa-debug-exit", "the guest ends the monitor with an exit status", AddDebugExit,
     [] {
       return object::DescribeProperties<DebugExitConfig>("isa-debug-exit", kDebugExitProperties);
     },
     [] { return InfoOf<DebugExitConfig>(kDebugExitProperties); }},
    {"vmgenid", "tells the guest when it is a copy or an old state", AddVmgenid,
     [] { return object::DescribeProperties<VmgenidConfig>("vmgenid", kVmgenidProperties); },
     [] { return InfoOf<VmgenidConfig>(kVmgenidProperties); }},
    {"pvpanic", "the guest reports its panic", AddPvpanic,
     [] { return object::DescribeProperties<PvpanicConfig>("pvpanic", kPvpanicProperties); },
     [] { return InfoOf<PvpanicConfig>(kPvpanicProperties); }},
};

// The families of QEMU's device models that people put on a command line.
constexpr std::array<std::string_view, 30> kQemuFamilies = {
    "AC97",    "ES1370",  "VGA",     "ahci",    "ccid",        "cirrus-vga",
    "e1000",   "edu",     "hda-",    "i82",     "ich9-",       "ide-",
    "intel-",  "ioh3420", "isa-",    "ivshmem", "megasas",     "nec-usb-xhci",
    "nvdimm",  "nvme",    "pc-dimm", "pci",     "pvpanic-pci", "qemu-xhci",
    "rtl8139", "scsi-",   "usb-",    "vfio-",   "vhost-",      "virtio-"};

Error UnknownModel(std::string_view name) {
  const auto is_family = [&](std::string_view family) { return name.starts_with(family); };
  std::vector<std::string_view> names;
  for (const DeviceModel& model : kModels) names.push_back(model.name);
  for (const devices::DeviceModel* model : devices::DeviceModels()) names.push_back(model->name);
  const std::string_view nearest = object::Nearest(name, names);
  if (!nearest.empty() && name != "pvpanic-pci") {
    return Error(Errc::kInvalidArgument, fmt::format("'{}' is not a valid device model name", name),
                 fmt::format("Did you mean {}?", nearest));
  }
  if (std::any_of(kQemuFamilies.begin(), kQemuFamilies.end(), is_family)) {
    return Error(Errc::kUnsupported,
                 fmt::format("QEMU has devices like '{}', Holdfast does not have them yet", name),
                 "Leave it out; -device help lists the devices there are.");
  }
  return Error(Errc::kInvalidArgument, fmt::format("'{}' is not a valid device model name", name),
               "-device help lists the devices there are.");
}

}  // namespace

std::vector<control::DeviceType> DeviceTypes() {
  std::vector<control::DeviceType> types;
  for (const DeviceModel& model : kModels) {
    types.push_back({std::string(model.name), model.properties()});
  }
  for (const devices::DeviceModel* model : devices::DeviceModels()) {
    types.push_back({std::string(model->name), model->properties()});
  }
  return types;
}

Status ParseDevice(Options& options, std::string_view argument) {
  KeyValues values;
  if (argument.starts_with('{')) {
    HF_TRY(values, object::ParseJsonKeyValues(argument));
  } else {
    HF_TRY(values, object::ParseKeyValues(argument, "driver"));
  }
  const std::string* driver = object::FindValue(values, "driver");
  if (driver == nullptr) {
    return Fail(Errc::kInvalidArgument, "Parameter 'driver' is missing",
                "The argument starts with the device's name; -device help lists them.");
  }
  if (*driver == "help" || *driver == "?") {
    std::string text = "Holdfast's devices:\n";
    for (const DeviceModel& model : kModels) {
      text += fmt::format("name \"{}\", bus ISA, desc \"{}\"\n", model.name, model.description);
    }
    for (const devices::DeviceModel* model : devices::DeviceModels()) {
      text += fmt::format("name \"{}\", bus {}, desc \"{}\"\n", model->name, model->bus_type,
                          model->description);
    }
    options.print = std::move(text);
    return {};
  }
  for (const DeviceModel& model : kModels) {
    if (model.name != *driver) continue;
    if (object::WantsHelp(values)) {
      options.print = model.help();
      return {};
    }
    return model.add(options, values);
  }
  if (const devices::DeviceModel* model = devices::FindDeviceModel(*driver))
    return AddDevice(options, *model, values);
  return Fail(UnknownModel(*driver));
}

Status ParseNoDefaults(Options& options, std::string_view) {
  options.no_defaults = true;
  return {};
}

Status ParseParallel(Options&, std::string_view argument) {
  if (argument == "none") return {};
  return Fail(Errc::kUnsupported, "QEMU has parallel ports, Holdfast does not have them",
              "Write none or leave it out.");
}

}  // namespace holdfast::apps
