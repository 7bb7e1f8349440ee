// SPDX-License-Identifier: Apache-2.0
// query-pci and info pci: the functions on the buses, as the guest has set them up.
#include <fmt/format.h>

#include "control/device_text.h"
#include "control/human_commands.h"
#include "control/qmp_commands.h"
#include "devices/pci/bridge.h"
#include "devices/pci/config_regs.h"
#include "devices/pci/pci_host.h"
#include "machine/machine.h"

namespace holdfast::control {
namespace {

namespace pci = devices::pci;

constexpr struct {
  std::uint32_t code;
  std::string_view text;
} kPciClasses[] = {{0x0100, "SCSI controller"},
                   {0x0200, "Ethernet controller"},
                   {0x0600, "Host bridge"},
                   {0x0604, "PCI bridge"},
                   {0x0780, "Communication controller"},
                   {0x0880, "System peripheral"},
                   {0x00ff, "Unclassified device"},
                   {0x0180, "Storage controller"}};

Json RegionsOf(const pci::Function& function) {
  Json regions = Json::array();
  for (unsigned i = 0; i < pci::Function::kBars; ++i) {
    const pci::Function::BarInfo bar = function.bar(i);
    if (bar.size == 0) continue;
    Json region{{"bar", i},
                {"type", bar.kind == pci::BarKind::kIo ? "io" : "memory"},
                {"address", bar.where ? static_cast<std::int64_t>(bar.where->value()) : -1},
                {"size", bar.size}};
    if (bar.kind != pci::BarKind::kIo) {
      region["prefetch"] = bar.kind == pci::BarKind::kMemory64Prefetchable;
      region["mem_type_64"] = bar.kind != pci::BarKind::kMemory32;
    }
    regions.push_back(std::move(region));
  }
  return regions;
}

Json DevicesOn(const pci::PciBus& bus, unsigned number);

Json BridgeInfo(pci::Bridge& bridge) {
  const auto range = [](std::uint64_t base, std::uint64_t limit) {
    return Json{{"base", base}, {"limit", limit}};
  };
  const auto word = [&](std::uint16_t reg) { return std::uint64_t{bridge.ReadConfig(reg, 2)}; };
  const auto upper = [&](std::uint16_t reg) {
    return std::uint64_t{bridge.ReadConfig(reg, 4)} << 32;
  };
  const pci::Bridge::Numbers numbers = bridge.numbers();
  const std::uint64_t io = word(pci::kRegIoBase);
  Json info{
      {"bus",
       {{"number", bridge.ReadConfig(pci::kRegPrimaryBus, 1)},
        {"secondary", numbers.secondary},
        {"subordinate", numbers.subordinate},
        {"io_range", range((io & 0xf0) << 8, (io & 0xf000) | 0xfff)},
        {"memory_range", range((word(pci::kRegMemoryBase) & 0xfff0) << 16,
                               (word(pci::kRegMemoryLimit) & 0xfff0) << 16 | 0xfffff)},
        {"prefetchable_range",
         range(upper(pci::kRegPrefetchBaseUpper) | (word(pci::kRegPrefetchBase) & 0xfff0) << 16,
               upper(pci::kRegPrefetchLimitUpper) | (word(pci::kRegPrefetchLimit) & 0xfff0) << 16 |
                   0xfffff)}}}};
  info["devices"] = DevicesOn(bridge.secondary(), numbers.secondary);
  return info;
}

Json DevicesOn(const pci::PciBus& bus, unsigned number) {
  Json list = Json::array();
  bus.ForEach([&](const pci::PciBus::Occupant& occupant) {
    pci::Function& function = *occupant.function;
    const pci::Identity& identity = function.identity();
    const std::uint32_t code = identity.class_code >> 8;
    Json device{{"bus", number},
                {"slot", occupant.placement.address->slot},
                {"function", occupant.placement.address->function},
                {"class_info", {{"class", code}}},
                {"id", {{"device", identity.device}, {"vendor", identity.vendor}}},
                {"irq_pin", function.ReadConfig(pci::kRegInterruptPin, 1)},
                {"qdev_id", occupant.placement.id},
                {"regions", RegionsOf(function)}};
    if (const std::string_view text = PciClassText(code); !text.empty())
      device["class_info"]["desc"] = text;
    if (identity.interrupt_pin) device["irq"] = function.ReadConfig(pci::kRegInterruptLine, 1);
    if (occupant.bridge != nullptr) {
      device["pci_bridge"] = BridgeInfo(*occupant.bridge);
    } else {
      device["id"]["subsystem"] = identity.subsystem;
      device["id"]["subsystem-vendor"] = identity.subsystem_vendor;
    }
    list.push_back(std::move(device));
  });
  return list;
}

QmpResult QueryPci(VmContext& vm, const Json&) {
  return Json::array({{{"bus", 0}, {"devices", DevicesOn(vm.machine().pci().root(), 0)}}});
}

std::string DescribeRegion(const Json& region) {
  const auto size = region["size"].get<std::uint64_t>();
  const auto address = region["address"].get<std::int64_t>();
  const auto bits =
      region["type"] == "io" ? std::string("I/O")
      : region.value("mem_type_64", false)
          ? fmt::format("64 bit {}memory", region.value("prefetch", false) ? "prefetchable " : "")
          : std::string("32 bit memory");
  const auto base = static_cast<std::uint64_t>(address);
  return fmt::format("      BAR{}: {} at {:#x} [{:#x}].\n", region["bar"].get<unsigned>(), bits,
                     base, address < 0 ? base : base + size - 1);
}

std::string Describe(const Json& devices) {
  std::string text;
  for (const Json& device : devices) {
    const Json& id = device["id"];
    const Json& kind = device["class_info"];
    text += fmt::format("  Bus {:2}, device {:3}, function {}:\n", device["bus"].get<unsigned>(),
                        device["slot"].get<unsigned>(), device["function"].get<unsigned>());
    text += fmt::format("    {}: PCI device {:04x}:{:04x}\n",
                        kind.contains("desc")
                            ? kind["desc"].get<std::string>()
                            : fmt::format("Class {:04}", kind["class"].get<unsigned>()),
                        id["vendor"].get<unsigned>(), id["device"].get<unsigned>());
    if (id.contains("subsystem")) {
      text += fmt::format("      PCI subsystem {:04x}:{:04x}\n",
                          id["subsystem-vendor"].get<unsigned>(), id["subsystem"].get<unsigned>());
    }
    if (device.contains("irq"))
      text += fmt::format("      IRQ {}, pin {}\n", device["irq"].get<unsigned>(), 'A');
    if (device.contains("pci_bridge")) {
      const Json& bus = device["pci_bridge"]["bus"];
      text += fmt::format("      BUS {}.\n      secondary bus {}.\n      subordinate bus {}.\n",
                          bus["number"].get<unsigned>(), bus["secondary"].get<unsigned>(),
                          bus["subordinate"].get<unsigned>());
    }
    for (const Json& region : device["regions"]) text += DescribeRegion(region);
    text += fmt::format("      id \"{}\"\n", device["qdev_id"].get<std::string>());
    if (device.contains("pci_bridge")) text += Describe(device["pci_bridge"]["devices"]);
  }
  return text;
}

}  // namespace

void DefinePciCommands(Schema& schema) {
  schema.Struct("PciMemoryRange", {{"base", "int"}, {"limit", "int"}});
  schema.Struct("PciMemoryRegion", {{"bar", "int"},
                                    {"type", "str"},
                                    {"address", "int"},
                                    {"size", "int"},
                                    {"prefetch?", "bool"},
                                    {"mem_type_64?", "bool"}});
  schema.Struct("PciBusInfo", {{"number", "int"},
                               {"secondary", "int"},
                               {"subordinate", "int"},
                               {"io_range", "PciMemoryRange"},
                               {"memory_range", "PciMemoryRange"},
                               {"prefetchable_range", "PciMemoryRange"}});
  schema.Struct("PciBridgeInfo", {{"bus", "PciBusInfo"}, {"devices?", "[PciDeviceInfo]"}});
  schema.Struct("PciDeviceClass", {{"desc?", "str"}, {"class", "int"}});
  schema.Struct(
      "PciDeviceId",
      {{"device", "int"}, {"vendor", "int"}, {"subsystem?", "int"}, {"subsystem-vendor?", "int"}});
  schema.Struct("PciDeviceInfo", {{"bus", "int"},
                                  {"slot", "int"},
                                  {"function", "int"},
                                  {"class_info", "PciDeviceClass"},
                                  {"id", "PciDeviceId"},
                                  {"irq?", "int"},
                                  {"irq_pin", "int"},
                                  {"qdev_id", "str"},
                                  {"pci_bridge?", "PciBridgeInfo"},
                                  {"regions", "[PciMemoryRegion]"}});
  schema.Struct("PciInfo", {{"bus", "int"}, {"devices", "[PciDeviceInfo]"}});
  schema.AddCommand("query-pci", {.result = "[PciInfo]", .run = QueryPci});
}

std::string_view PciClassText(std::uint32_t code) noexcept {
  for (const auto& entry : kPciClasses)
    if (entry.code == code) return entry.text;
  return {};
}

Result<std::string> HumanCommands::InfoPci(std::string_view) {
  return Describe(DevicesOn(context_.machine().pci().root(), 0));
}

}  // namespace holdfast::control
