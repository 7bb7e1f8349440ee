// SPDX-License-Identifier: Apache-2.0
#include "machine/acpi/pci_root.h"

#include "machine/boot/layout.h"

namespace holdfast::machine::acpi {
namespace {

using aml::Term;
using devices::pci::PciBus;
using devices::pci::PciHost;

// _OSC: the UUID of PCI host bridges, 33db4d5b-1ff7-401c-9657-7441c03dd766, in memory order.
const std::vector<std::uint8_t> kOscUuid = {0x5b, 0x4d, 0xdb, 0x33, 0xf7, 0x1f, 0x1c, 0x40,
                                            0x96, 0x57, 0x74, 0x41, 0xc0, 0x3d, 0xd7, 0x66};
constexpr std::uint64_t kNativeHotplug = 1 << 0;
constexpr std::uint64_t kExpressCapability = 1 << 4;
constexpr std::uint64_t kUnknownUuid = 1 << 2;
constexpr std::uint64_t kMasked = 1 << 4;

// Grants the kernel what it asks for, as far as it is there.
Term Osc() {
  const Term status = aml::Ref("CDW1");
  const Term control = aml::Ref("CDW3");
  const Term granted = aml::Local(0);
  const Term buffer = aml::Arg(3);
  return aml::Method(
      "_OSC", 4, true,
      {aml::CreateDWordField(buffer, 0, "CDW1"),
       aml::If(aml::Equal(aml::Arg(0), aml::Buffer(kOscUuid)),
               {aml::CreateDWordField(buffer, 8, "CDW3"),
                aml::And(control, aml::Integer(kNativeHotplug | kExpressCapability), granted),
                aml::If(aml::Not(aml::Equal(granted, control)),
                        {aml::Or(status, aml::Integer(kMasked), status)}),
                aml::Store(granted, control), aml::Return(buffer)}),
       aml::Or(status, aml::Integer(kUnknownUuid), status), aml::Return(buffer)});
}

// Each pin of each slot straight to an input of the I/O APIC.
Term InterruptRouting() {
  constexpr std::uint64_t kAllFunctions = 0xffff;
  std::vector<Term> entries;
  for (unsigned slot = 0; slot < PciBus::kSlots; ++slot) {
    for (unsigned pin = 0; pin < PciHost::kGsis; ++pin) {
      entries.push_back(aml::Package({aml::Integer((std::uint64_t{slot} << 16) | kAllFunctions),
                                      aml::Integer(pin), aml::Integer(0),
                                      aml::Integer(PciHost::GsiOf(slot, pin))}));
    }
  }
  return aml::Name("_PRT", aml::Package(entries));
}

}  // namespace

Term PciRoot(const devices::pci::Windows& windows) {
  constexpr boot::LowRange kEcam = boot::kEcam;
  std::vector<aml::Resource> resources = {
      aml::BusNumbers(0xff), aml::IoPorts(0xcf8, 8),
      aml::IoWindow(static_cast<std::uint16_t>(windows.io.base),
                    static_cast<std::uint16_t>(windows.io.size)),
      aml::MemoryWindow32(static_cast<std::uint32_t>(windows.memory32.base),
                          static_cast<std::uint32_t>(windows.memory32.size))};
  if (windows.memory64.size != 0)
    resources.push_back(aml::MemoryWindow64(windows.memory64.base, windows.memory64.size));
  return aml::Sequence({
      aml::Device("PCI0",
                  {aml::Name("_HID", aml::EisaId("PNP0A08")),
                   aml::Name("_CID", aml::EisaId("PNP0A03")), aml::Name("_SEG", aml::Integer(0)),
                   aml::Name("_BBN", aml::Integer(0)), aml::Name("_UID", aml::Integer(0)),
                   aml::Name("_CRS", aml::ResourceTemplate(resources)), InterruptRouting(), Osc()}),
      // A kernel uses ECAM only where the addresses are reserved here too.
      aml::Device("MRES",
                  {aml::Name("_HID", aml::EisaId("PNP0C02")), aml::Name("_UID", aml::Integer(1)),
                   aml::Name("_CRS", aml::ResourceTemplate({aml::Memory32(
                                         static_cast<std::uint32_t>(kEcam.base.value()),
                                         static_cast<std::uint32_t>(kEcam.size), true)}))}),
  });
}

}  // namespace holdfast::machine::acpi
