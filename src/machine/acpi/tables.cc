// SPDX-License-Identifier: Apache-2.0
#include "machine/acpi/tables.h"

#include <span>

#include <fmt/format.h>

#include <holdfast/units.h>

#include "devices/acpi_pm_regs.h"
#include "machine/acpi/dsdt.h"
#include "machine/acpi/numa_tables.h"
#include "machine/acpi/table_writer.h"
#include "machine/boot/layout.h"
#include "machine/config.h"

namespace holdfast::machine::acpi {
namespace {

namespace pm = devices::acpi;

constexpr std::uint32_t kLocalApicAddress = 0xfee00000;
constexpr std::uint32_t kIoApicAddress = 0xfec00000;
constexpr std::uint32_t kFirstX2ApicId = 255;  // 255 is xAPIC's broadcast

// MADT entry types and flags.
constexpr std::uint8_t kLocalApic = 0;
constexpr std::uint8_t kIoApic = 1;
constexpr std::uint8_t kSourceOverride = 2;
constexpr std::uint8_t kLocalApicNmi = 4;
constexpr std::uint8_t kLocalX2Apic = 9;
constexpr std::uint8_t kLocalX2ApicNmi = 10;
constexpr std::uint32_t kPcAtCompatible = 1 << 0;  // there is a pair of 8259s as well
constexpr std::uint32_t kCpuEnabled = 1 << 0;
constexpr std::uint32_t kCpuOnlineCapable = 1 << 1;
constexpr std::uint16_t kAsTheBusDoes = 0;
constexpr std::uint16_t kActiveHighLevel = 0x000d;

// FADT.
constexpr std::uint8_t kFadtRevision = 6;
constexpr std::uint8_t kFadtMinorRevision = 5;
constexpr std::uint8_t kCenturyRegister = 0x32;  // in CMOS
constexpr std::uint16_t kNoC2 = 101;             // a latency above 100 us: no such state
constexpr std::uint16_t kNoC3 = 1001;            // above 1000 us
// IAPC_BOOT_ARCH. The 8042 bit stays clear although a reset through port 0x64 works: with it a
// kernel looks for keyboard and mouse, which costs Linux a good part of a second of timeouts.
constexpr std::uint16_t kLegacyDevices = 1 << 0;
constexpr std::uint16_t kVgaNotPresent = 1 << 2;
// Feature flags. PWR_BUTTON stays clear: the button is a fixed one, in PM1.
constexpr std::uint32_t kWbinvd = 1 << 0;
constexpr std::uint32_t kC1OnAllCpus = 1 << 2;
constexpr std::uint32_t kNoFixedSleepButton = 1 << 5;
constexpr std::uint32_t kNoFixedRtcWake = 1 << 6;
constexpr std::uint32_t kTimerHas32Bits = 1 << 8;
constexpr std::uint32_t kResetRegister = 1 << 10;

Bytes BuildFacs() {
  // A FACS has signature and length but neither the common header nor a checksum.
  constexpr std::uint8_t kSize = 64;
  TableWriter facs;
  facs.Text("FACS").U32(kSize).Zeros(24).U8(2);
  return facs.Zeros(kSize - facs.size()).Take();
}

Bytes BuildFadt(std::uint32_t facs, std::uint32_t dsdt) {
  TableWriter fadt("FACP", kFadtRevision);
  // The ACPI 1.0 part: 32-bit addresses.
  fadt.U32(facs).U32(dsdt).U8(0).U8(0 /* profile: unspecified */).U16(pm::kSciIrq);
  fadt.U32(pm::kSmiCommandPort).U8(pm::kAcpiEnable).U8(pm::kAcpiDisable);
  fadt.U8(0).U8(0);  // no S4BIOS, no P-states
  fadt.U32(pm::kPm1EventPort).U32(0).U32(pm::kPm1ControlPort).U32(0).U32(0);
  fadt.U32(pm::kPmTimerPort).U32(pm::kGpe0Port).U32(0);
  fadt.U8(pm::kPm1EventLength).U8(pm::kPm1ControlLength).U8(0).U8(pm::kPmTimerLength);
  fadt.U8(pm::kGpe0Length).U8(0).U8(0).U8(0);
  fadt.U16(kNoC2).U16(kNoC3).U16(0).U16(0).U8(0).U8(0);
  fadt.U8(0).U8(0).U8(kCenturyRegister);  // no day and month alarm
  fadt.U16(kLegacyDevices | kVgaNotPresent).U8(0);
  fadt.U32(kWbinvd | kC1OnAllCpus | kNoFixedSleepButton | kNoFixedRtcWake | kTimerHas32Bits |
           kResetRegister);
  fadt.IoAddress(pm::kResetPort, 8).U8(pm::kResetValue);
  fadt.U16(0).U8(kFadtMinorRevision);
  // The same again with 64-bit addresses.
  fadt.U64(facs).U64(dsdt);
  fadt.IoAddress(pm::kPm1EventPort, pm::kPm1EventLength * 8).IoAddress(0, 0);
  fadt.IoAddress(pm::kPm1ControlPort, pm::kPm1ControlLength * 8).IoAddress(0, 0);
  fadt.IoAddress(0, 0).IoAddress(pm::kPmTimerPort, pm::kPmTimerLength * 8);
  fadt.IoAddress(pm::kGpe0Port, pm::kGpe0Length * 8).IoAddress(0, 0);
  fadt.IoAddress(0, 0).IoAddress(0, 0).U64(0);  // sleep registers: only without fixed hardware
  return fadt.Finish();
}

Bytes BuildMadt(const AcpiConfig& config) {
  TableWriter madt("APIC", 5);  // 5: the online-capable flag (ACPI 6.3)
  madt.U32(kLocalApicAddress).U32(kPcAtCompatible);
  bool has_x2apic = false;
  for (std::uint32_t uid = 0; uid < config.apic_ids.size() && uid < kMaxCpus; ++uid) {
    const std::uint32_t id = config.apic_ids[uid];
    const std::uint32_t flags = uid < config.enabled_cpus ? kCpuEnabled : kCpuOnlineCapable;
    if (id < kFirstX2ApicId) {
      madt.U8(kLocalApic).U8(8).U8(static_cast<std::uint8_t>(uid));
      madt.U8(static_cast<std::uint8_t>(id)).U32(flags);
    } else {
      madt.U8(kLocalX2Apic).U8(16).U16(0).U32(id).U32(flags).U32(uid);
      has_x2apic = true;
    }
  }
  madt.U8(kIoApic).U8(12).U8(0).U8(0).U32(kIoApicAddress).U32(0);
  // The timer's ISA interrupt 0 comes in at pin 2, as on every PC; the SCI is level triggered.
  madt.U8(kSourceOverride).U8(10).U8(0).U8(0).U32(2).U16(kAsTheBusDoes);
  madt.U8(kSourceOverride).U8(10).U8(0).U8(pm::kSciIrq).U32(pm::kSciIrq).U16(kActiveHighLevel);
  madt.U8(kLocalApicNmi).U8(6).U8(0xff /* all */).U16(kAsTheBusDoes).U8(1 /* LINT1 */);
  if (has_x2apic) madt.U8(kLocalX2ApicNmi).U8(12).U16(kAsTheBusDoes).U32(0xffffffff).U8(1).Zeros(3);
  return madt.Finish();
}

// Where PCI configuration space is (PCI Firmware 3.2, 4.1.2).
Bytes BuildMcfg() {
  TableWriter mcfg("MCFG", 1);
  mcfg.Zeros(8).U64(boot::kEcam.base.value()).U16(0 /* segment */);
  mcfg.U8(0).U8(boot::kEcam.size / kMiB - 1).U32(0);  // first and last bus
  return mcfg.Finish();
}

Bytes BuildXsdt(std::span<const std::uint64_t> tables) {
  TableWriter xsdt("XSDT", 1);
  for (const std::uint64_t table : tables) xsdt.U64(table);
  return xsdt.Finish();
}

Bytes BuildRsdp(std::uint64_t xsdt) {
  constexpr std::size_t kVersion1Size = 20;
  constexpr std::size_t kVersion1Checksum = 8;
  constexpr std::size_t kExtendedChecksum = 32;
  TableWriter writer;
  writer.Text("RSD PTR ").U8(0).Text("HLDFST").U8(2 /* revision */).U32(0 /* no RSDT */);
  writer.U32(36).U64(xsdt).U8(0).Zeros(3);
  Bytes rsdp = writer.Take();
  rsdp[kVersion1Checksum] = Checksum(std::span(rsdp).first(kVersion1Size));
  rsdp[kExtendedChecksum] = Checksum(rsdp);
  return rsdp;
}

}  // namespace

Result<AcpiTables> BuildAcpi(const AcpiConfig& config) {
  constexpr GuestAddress kBase = boot::kAcpiArea.base;
  constexpr std::size_t kRsdpRoom = 64;  // the RSDP is filled in last, when all else has its place
  // 64: what a FACS needs; the others are content with it.
  constexpr std::size_t kAlignment = 64;
  // Everything but the HMAT's matrices fits in any number: 255 x2APIC entries in MADT and SRAT,
  // 128 nodes in SRAT, SLIT and HMAT, every device.
  static_assert(kRsdpRoom + kMaxCpus * std::size_t{16 + 24} +
                    (kMaxNumaNodes + 2) * std::size_t{40} +
                    kMaxNumaNodes * std::size_t{kMaxNumaNodes + 40 + 3 * 32} + 8 * kKiB <
                boot::kAcpiArea.size - boot::kSmbiosMost);

  Bytes block(kRsdpRoom);
  const auto place = [&](const Bytes& table) {
    const std::uint64_t address = kBase.value() + block.size();
    block.insert(block.end(), table.begin(), table.end());
    block.resize(AlignUp(block.size(), kAlignment));
    return address;
  };
  const auto facs = static_cast<std::uint32_t>(place(BuildFacs()));
  std::uint64_t generation_id = 0;
  if (config.vm_generation_id) {
    generation_id = place({config.vm_generation_id->begin(), config.vm_generation_id->end()});
  }
  const auto dsdt = static_cast<std::uint32_t>(place(BuildDsdt(config, generation_id)));
  std::vector<std::uint64_t> tables = {place(BuildFadt(facs, dsdt)), place(BuildMadt(config)),
                                       place(BuildMcfg())};
  if (config.numa.enabled()) {
    tables.push_back(place(BuildSrat(config)));
    if (!config.numa.distances.empty()) tables.push_back(place(BuildSlit(config.numa)));
    if (config.numa.hmat) tables.push_back(place(BuildHmat(config.numa)));
  }
  const Bytes rsdp = BuildRsdp(place(BuildXsdt(tables)));
  std::copy(rsdp.begin(), rsdp.end(), block.begin());
  if (block.size() > config.room) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("the ACPI tables need {}, more than the {} there are",
                            FormatSize(AlignUp(block.size(), kKiB)),
                            FormatSize(AlignDown(config.room, kKiB))),
                "Describe fewer kinds of latencies and bandwidths with -numa hmat-lb.");
  }

  const auto bytes = std::as_bytes(std::span(block));
  return AcpiTables{kBase, std::vector<std::byte>(bytes.begin(), bytes.end()), kBase,
                    GuestAddress(generation_id)};
}

}  // namespace holdfast::machine::acpi
