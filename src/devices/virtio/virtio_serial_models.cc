// SPDX-License-Identifier: Apache-2.0
// `-device virtio-serial-pci`, and what goes onto its bus: virtserialport and virtconsole.
#include <fmt/format.h>

#include <array>

#include <nlohmann/json.hpp>

#include "devices/virtio/serial_port.h"
#include "devices/virtio/virtio_pci.h"
#include "devices/virtio/virtio_serial.h"

namespace holdfast::devices::virtio {
namespace {

using object::KeyValues;
using object::Property;
using object::PropertyInfo;
using object::PropertyType;
using object::PropertyValue;

// ---- virtio-serial-pci --------------------------------------------------------------------------

struct BusWords {
  std::uint32_t max_ports = VirtioSerial::kMostPorts;
};

constexpr Property<BusWords> kBusProperties[] = {
    {{.name = "max_ports",
      .type = PropertyType::kUint,
      .default_text = "31",
      .description = "how many ports there can be",
      .max = UINT32_MAX},
     object::SetField<&BusWords::max_ports>},
};
constexpr std::array<std::string_view, 1> kQemuBus = {"emergency-write"};

Result<BusWords> ParseBus(const KeyValues& values, TransportOptions& options) {
  HF_TRY(const KeyValues own, TakeTransportOptions(values, options));
  BusWords words;
  HF_TRY_STATUS(object::SetProperties<BusWords>(kBusProperties, kQemuBus, words, own));
  if (words.max_ports == 0 || words.max_ports > VirtioSerial::kMostPorts) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Invalid value for max_ports, must be between 1 and {}",
                            VirtioSerial::kMostPorts),
                "Leave max_ports= out for the largest.");
  }
  // One for each port and one for the configuration, as in QEMU; drivers share what is not enough.
  if (!options.vectors) options.vectors = words.max_ports + 1;
  return words;
}

Result<std::unique_ptr<pci::Function>> MakeBus(const DeviceEnvironment& environment,
                                               std::string_view id, const KeyValues& values) {
  TransportOptions options;
  HF_TRY(const BusWords words, ParseBus(values, options));
  std::string name = fmt::format("{}.0", id.empty() ? VirtioSerial::kBusType : id);
  return MakeVirtioPci(environment, id, kVirtioSerialPci.name, options,
                       std::make_unique<VirtioSerial>(environment.loop, std::move(name),
                                                      words.max_ports, environment.buses));
}

// ---- Ports --------------------------------------------------------------------------------------

struct PortWords {
  std::string chardev;
  std::string name;
  std::optional<std::uint32_t> number;
};
Status SetNumber(PortWords& words, const PropertyValue& value) {
  words.number = static_cast<std::uint32_t>(std::get<std::uint64_t>(value));
  return {};
}
constexpr Property<PortWords> kPortProperties[] = {
    {{.name = "chardev", .description = "id of the -chardev at the host's end"},
     object::SetField<&PortWords::chardev>},
    {{.name = "name", .description = "what the guest finds it by: /dev/virtio-ports/NAME"},
     object::SetField<&PortWords::name>},
    {{.name = "nr",
      .type = PropertyType::kUint,
      .default_text = "the next one",
      .description = "the port's number",
      .max = UINT32_MAX},
     SetNumber},
};

Result<PortWords> ParsePort(const KeyValues& values, bool console) {
  PortWords words;
  HF_TRY_STATUS(object::SetProperties<PortWords>(kPortProperties, {}, words, values));
  if (!console && words.number == 0U) {
    return Fail(Errc::kInvalidArgument,
                "Port number 0 on virtio-serial devices reserved for virtconsole devices for "
                "backward compatibility.",
                "Give nr=1 or more, or leave it out.");
  }
  if (!console && words.chardev.empty()) {
    return Fail(Errc::kInvalidArgument, "Can't create serial device, empty char device",
                "Name a -chardev: chardev=ID.");
  }
  return words;
}

Result<std::unique_ptr<ChildDevice>> MakePort(const DeviceEnvironment& environment,
                                              std::string_view id, std::string_view bus,
                                              const KeyValues& values, bool console) {
  const std::string_view model = console ? kVirtconsole.name : kVirtserialport.name;
  HF_TRY(const PortWords words, ParsePort(values, console));
  if (environment.buses == nullptr) return Fail(Errc::kNotFound, "there are no buses");
  HF_TRY(ChildBus* const found, environment.buses->Find(bus, VirtioSerial::kBusType, model));
  VirtioSerial& serial = static_cast<VirtioSerial::Bus&>(*found).owner();
  Chardev* chardev = nullptr;
  if (!words.chardev.empty()) {
    if (environment.backends.chardev) chardev = environment.backends.chardev(words.chardev);
    if (chardev == nullptr) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("Property '{}.chardev' can't find value '{}'", model, words.chardev),
                  fmt::format("Make it with -chardev BACKEND,id={}.", words.chardev));
    }
  }
  HF_TRY(const std::uint32_t number, serial.ChooseNumber(words.number, console));
  SerialPort::OpenChanged open_changed;
  if (!console && !id.empty() && environment.emit) {
    open_changed = [emit = environment.emit, name = std::string(id)](bool open) {
      emit("VSERPORT_CHANGE", {{"id", name}, {"open", open}});
    };
  }
  auto port = SerialPort::Create(serial, {.name = words.name, .number = number, .console = console},
                                 chardev, std::move(open_changed));
  if (!port && chardev != nullptr) {
    return Fail(std::move(port).error().Wrap(fmt::format("chardev '{}'", words.chardev)));
  }
  if (!port) return Fail(std::move(port).error());
  return std::unique_ptr<ChildDevice>(*std::move(port));
}

std::vector<PropertyInfo> PortProperties() {
  return {std::begin(kPortProperties), std::end(kPortProperties)};
}

}  // namespace

constexpr DeviceModel kVirtioSerialPci = {
    .name = "virtio-serial-pci",
    .description = "a bus for virtconsole and virtserialport",
    .properties =
        [] {
          return WithTransportProperties({std::begin(kBusProperties), std::end(kBusProperties)});
        },
    .check = [](const KeyValues& values) -> Status {
      TransportOptions options;
      HF_TRY_STATUS(ParseBus(values, options));
      return {};
    },
    .create = MakeBus,
};

constexpr DeviceModel kVirtserialport = {
    .name = "virtserialport",
    .description = "a named stream of bytes between guest and host",
    .properties = PortProperties,
    .check = [](const KeyValues& values) -> Status {
      HF_TRY_STATUS(ParsePort(values, false));
      return {};
    },
    .bus_type = VirtioSerial::kBusType,
    .attach = [](const DeviceEnvironment& environment, std::string_view id, std::string_view bus,
                 const KeyValues& values) { return MakePort(environment, id, bus, values, false); },
};

constexpr DeviceModel kVirtconsole = {
    .name = "virtconsole",
    .description = "a console (hvc0) in the guest",
    .properties = PortProperties,
    .check = [](const KeyValues& values) -> Status {
      HF_TRY_STATUS(ParsePort(values, true));
      return {};
    },
    .bus_type = VirtioSerial::kBusType,
    .attach = [](const DeviceEnvironment& environment, std::string_view id, std::string_view bus,
                 const KeyValues& values) { return MakePort(environment, id, bus, values, true); },
};

}  // namespace holdfast::devices::virtio
