// SPDX-License-Identifier: Apache-2.0
#include "machine/acpi/dsdt.h"

#include <string>

#include "devices/acpi_pm_regs.h"
#include "devices/fw_cfg.h"
#include "machine/acpi/aml.h"
#include "machine/acpi/pci_root.h"

namespace holdfast::machine::acpi {
namespace {

using aml::Term;

constexpr struct {
  std::uint16_t port;
  unsigned irq;
} kSerialPorts[] = {{0x3f8, 4}, {0x2f8, 3}, {0x3e8, 4}, {0x2e8, 3}};

constexpr std::uint64_t kPresentAndWorking = 0x0f;  // _STA: present, enabled, shown, functioning

Term SerialPort(unsigned index) {
  const auto& port = kSerialPorts[index];
  return aml::Device(
      "COM" + std::to_string(index + 1),
      {aml::Name("_HID", aml::EisaId("PNP0501")), aml::Name("_UID", aml::Integer(index + 1)),
       aml::Name("_STA", aml::Integer(kPresentAndWorking)),
       aml::Name("_CRS",
                 aml::ResourceTemplate({aml::IoPorts(port.port, 8), aml::IsaIrq(port.irq)}))});
}

Term RealTimeClock() {
  return aml::Device(
      "RTC", {aml::Name("_HID", aml::EisaId("PNP0B00")),
              aml::Name("_CRS", aml::ResourceTemplate({aml::IoPorts(0x70, 2), aml::IsaIrq(8)}))});
}

Term FwCfg() {
  constexpr std::uint64_t kNotShown = 0x0b;  // _STA: present, enabled, functioning
  return aml::Device(
      "FWCF",
      {aml::Name("_HID", aml::String("QEMU0002")), aml::Name("_STA", aml::Integer(kNotShown)),
       aml::Name("_CRS", aml::ResourceTemplate(
                             {aml::IoPorts(devices::FwCfg::kPort, devices::FwCfg::kPortCount)}))});
}

// Spec: Microsoft, "Virtual Machine Generation ID"; the second compatible id is that of its later
// edition, whose length ACPI allows. When the number has changed, GenerationEvent() tells.
Term GenerationId(std::uint64_t address) {
  constexpr std::string_view kName = "VM_Gen_Counter";
  return aml::Device(
      "VGEN",
      {aml::Name("_HID", aml::String("QEMUVGID")),
       aml::Name("_CID", aml::Package({aml::String(kName), aml::String("VMGENCTR")})),
       aml::Name("_DDN", aml::String(kName)), aml::Name("_STA", aml::Integer(kPresentAndWorking)),
       aml::Name("ADDR",
                 aml::Package({aml::Integer(address & 0xffffffff), aml::Integer(address >> 32)}))});
}

// The method of the general purpose event: edge, as the number changes once.
Term GenerationEvent() {
  static_assert(devices::acpi::kGenerationEvent == 5);
  constexpr std::uint64_t kChanged = 0x80;
  return aml::Scope("\\_GPE",
                    {aml::Method("_E05", 0, false, {aml::Notify("\\_SB.VGEN", kChanged)})});
}

Term Pvpanic(std::uint16_t port) {
  return aml::Device("PEVT", {aml::Name("_HID", aml::String("QEMU0001")),
                              aml::Name("_STA", aml::Integer(kPresentAndWorking)),
                              aml::Name("_CRS", aml::ResourceTemplate({aml::IoPorts(port, 1)}))});
}

}  // namespace

Bytes BuildDsdt(const AcpiConfig& config, std::uint64_t generation_id) {
  std::vector<Term> devices;
  for (unsigned i = 0; i < config.serial_ports.size(); ++i)
    if (config.serial_ports[i]) devices.push_back(SerialPort(i));
  devices.push_back(RealTimeClock());
  devices.push_back(FwCfg());
  if (config.vm_generation_id) devices.push_back(GenerationId(generation_id));
  if (config.pvpanic_port) devices.push_back(Pvpanic(*config.pvpanic_port));

  devices.push_back(PciRoot(config.pci));

  // SLP_TYPa, SLP_TYPb, two reserved.
  const Term soft_off = aml::Integer(devices::acpi::kSleepTypeS5);
  std::vector<Term> terms = {
      aml::Name("\\_S5", aml::Package({soft_off, soft_off, aml::Integer(0), aml::Integer(0)})),
      aml::Scope("\\_SB", devices),
  };
  if (config.vm_generation_id) terms.push_back(GenerationEvent());
  const Term contents = aml::Sequence(terms);
  // Revision 2 makes AML integers 64 bits wide.
  return TableWriter("DSDT", 2).Raw(contents.bytes).Finish();
}

}  // namespace holdfast::machine::acpi
