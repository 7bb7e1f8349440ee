// SPDX-License-Identifier: Apache-2.0
// info qtree: the devices, by the buses they are on.
#include <fmt/format.h>

#include "control/context.h"
#include "control/device_text.h"
#include "control/human_commands.h"
#include "devices/bus.h"
#include "devices/pci/bridge.h"
#include "devices/pci/config_regs.h"
#include "devices/pci/pci_host.h"
#include "machine/machine.h"

namespace holdfast::control {
namespace {

namespace pci = devices::pci;
using Child = machine::DeviceTree::Child;
using object::PropertyType;

std::string Line(unsigned indent, std::string_view text) {
  return fmt::format("{:{}}{}\n", "", indent, text);
}

// A property's value as QEMU writes it: words in quotes, switches as true and false.
std::string ValueText(const object::PropertyInfo& property, const std::string* given) {
  if (property.type == PropertyType::kBool) {
    const std::string_view value = given != nullptr ? *given : property.default_text;
    return value == "on" || value == "true" || value == "yes" ? "true" : "false";
  }
  const bool word = property.type == PropertyType::kString || property.type == PropertyType::kEnum;
  if (given != nullptr) return word ? fmt::format("\"{}\"", *given) : *given;
  // A default that is no value ("one for each vCPU") says what stands for it.
  if (property.default_text.empty()) return word ? "\"\"" : "<unset>";
  return word ? fmt::format("\"{}\"", property.default_text) : std::string(property.default_text);
}

std::string Properties(const devices::DeviceModel* model, const object::KeyValues& values,
                       unsigned indent) {
  std::string text;
  if (model == nullptr) return text;
  for (const object::PropertyInfo& property : model->properties()) {
    text +=
        Line(indent, fmt::format("{} = {}", property.name,
                                 ValueText(property, object::FindValue(values, property.name))));
  }
  return text;
}

std::string FunctionText(const pci::PciBus::Occupant& occupant, unsigned bus, unsigned indent) {
  const pci::Function& function = *occupant.function;
  const pci::Identity& identity = function.identity();
  const std::uint32_t code = identity.class_code >> 8;
  const std::string_view name = PciClassText(code);
  std::string text = Line(
      indent,
      fmt::format("class {}, addr {:02x}:{:02x}.{:x}, pci id {:04x}:{:04x} (sub {:04x}:{:04x})",
                  name.empty() ? fmt::format("Class {:04x}", code) : std::string(name), bus,
                  occupant.placement.address->slot, occupant.placement.address->function,
                  identity.vendor, identity.device, identity.subsystem_vendor, identity.subsystem));
  for (unsigned i = 0; i < pci::Function::kBars; ++i) {
    const pci::Function::BarInfo bar = function.bar(i);
    if (bar.size == 0) continue;
    const std::uint64_t base = bar.where ? bar.where->value() : UINT64_MAX;
    text += Line(indent, fmt::format("bar {}: {} at {:#x} [{:#x}]", i,
                                     bar.kind == pci::BarKind::kIo ? "i/o" : "mem", base,
                                     bar.where ? base + bar.size - 1 : base));
  }
  return text;
}

std::string ChildBusText(const std::string& name, std::span<const Child> children,
                         unsigned indent) {
  std::string text = Line(indent, fmt::format("bus: {}", name));
  bool has_type = false;
  for (const Child& child : children) {
    if (child.bus != name) continue;
    const devices::DeviceModel* const model = devices::FindDeviceModel(child.model);
    if (!has_type && model != nullptr) {
      text += Line(indent + 2, fmt::format("type {}", model->bus_type));
      has_type = true;
    }
    text += Line(indent + 2, fmt::format("dev: {}, id \"{}\"", child.model, child.id));
    text += Properties(model, child.values, indent + 4);
  }
  return text;
}

}  // namespace

std::string FormatDeviceBus(const pci::PciBus& bus, std::span<const Child> children,
                            unsigned indent) {
  std::string text = Line(indent, fmt::format("bus: {}", bus.name()));
  text += Line(indent + 2, "type PCIE");
  const unsigned number = bus.parent() == nullptr ? 0U : bus.parent()->numbers().secondary;
  bus.ForEach([&](const pci::PciBus::Occupant& occupant) {
    const pci::Placement& placement = occupant.placement;
    text += Line(indent + 2, fmt::format("dev: {}, id \"{}\"", placement.model, placement.id));
    const devices::DeviceModel* const model = devices::FindDeviceModel(placement.model);
    if (model != nullptr) {
      text += Line(indent + 4, fmt::format("addr = {:02x}.{:x}", placement.address->slot,
                                           placement.address->function));
      text += Line(indent + 4, fmt::format("multifunction = {}", placement.multifunction));
    }
    text += Properties(model, placement.values, indent + 4);
    text += FunctionText(occupant, number, indent + 4);
    for (const std::string& name : placement.buses)
      text += ChildBusText(name, children, indent + 4);
    if (occupant.bridge != nullptr) {
      text += FormatDeviceBus(occupant.bridge->secondary(), children, indent + 4);
    }
  });
  return text;
}

Result<std::string> HumanCommands::InfoQtree(std::string_view) {
  machine::Machine& machine = context_.machine();
  std::string text = "bus: main-system-bus\n  type System\n";
  const auto add = [&text](std::string_view space, const devices::Bus& bus) {
    bus.ForEach([&](std::uint64_t base, std::uint64_t size, const devices::BusDevice& device) {
      text += fmt::format("  dev: {}\n    {} {:016x}/{:016x}\n", device.name(), space, base, size);
    });
  };
  add("pio", machine.io());
  add("mmio", machine.mmio());
  text += Line(2, "dev: q35-pcihost, id \"\"");
  return text + FormatDeviceBus(machine.pci().root(), machine.device_tree().children(), 4);
}

}  // namespace holdfast::control
