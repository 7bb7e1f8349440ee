// SPDX-License-Identifier: Apache-2.0
#include "machine/acpi/tables.h"

#include <gtest/gtest.h>
#include <holdfast/units.h>

#include <map>
#include <numeric>
#include <string>

#include "machine/acpi/test_tables.h"
#include "machine/boot/layout.h"
#include "machine/config.h"
#include "machine/pci_layout.h"

namespace holdfast::machine::acpi {
namespace {

AcpiConfig Config(unsigned cpus, unsigned enabled, bool devices) {
  AcpiConfig config;
  for (unsigned i = 0; i < cpus; ++i) config.apic_ids.push_back(i);
  config.enabled_cpus = enabled;
  config.pci = PlanPci(4 * kGiB, 40);
  if (devices) {
    config.serial_ports = {true, true, true, true};
    config.pvpanic_port = 0x505;
    config.vm_generation_id = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  }
  return config;
}

unsigned Sum(const std::string& bytes) {
  return std::accumulate(bytes.begin(), bytes.end(), 0u, [](unsigned sum, char c) {
    return (sum + static_cast<unsigned char>(c)) & 0xff;
  });
}

TEST(AcpiTables, AreFoundFromTheRsdpWithCorrectChecksums) {
  for (const unsigned cpus : {1u, 4u, kMaxCpus}) {
    SCOPED_TRACE(cpus);
    const Block block(Config(cpus, cpus, true));
    const std::uint64_t rsdp = block.raw().rsdp.value();
    EXPECT_EQ(block.Text(rsdp, 8), "RSD PTR ");
    EXPECT_EQ(Sum(block.Text(rsdp, 20)), 0u);
    EXPECT_EQ(Sum(block.Text(rsdp, 36)), 0u);
    EXPECT_EQ(rsdp % 16, 0u);
    EXPECT_EQ(block.tables.size(), 6u);
    for (const auto& [signature, bytes] : block.tables)
      EXPECT_TRUE(signature == "FACS" || Sum(bytes) == 0) << signature;
    EXPECT_EQ(block.Field<std::uint64_t>("FACP", 132) % 64, 0u);
  }
}

TEST(AcpiTables, FitTheBiosAreaWithTheMostTheyCanHold) {
  AcpiConfig config = Config(kMaxCpus, kMaxCpus, true);
  for (std::uint32_t& id : config.apic_ids) id += 1000;  // all x2APIC: the larger entries
  const AcpiTables tables = *BuildAcpi(config);
  EXPECT_EQ(tables.address, boot::kAcpiArea.base);
  EXPECT_LE(tables.bytes.size(), boot::kAcpiArea.size);
}

TEST(AcpiTables, DescribeTheFixedHardwareTwiceAlike) {
  const Block block(Config(1, 1, true));
  ASSERT_EQ(block.tables.at("FACP").size(), 276u);
  const struct {
    const char* why;
    std::size_t offset;
    std::size_t gas;  // of the 64-bit form
    std::uint32_t port;
    std::uint8_t bits;
  } kBlocks[] = {
      {"PM1a events", 56, 148, 0x600, 32}, {"PM1a control", 64, 172, 0x604, 16},
      {"PM timer", 76, 208, 0x608, 32},    {"GPE0", 80, 220, 0x620, 128},
      {"no PM1b events", 60, 160, 0, 0},   {"no PM1b control", 68, 184, 0, 0},
      {"no PM2", 72, 196, 0, 0},           {"no GPE1", 84, 232, 0, 0},
  };
  for (const auto& b : kBlocks) {
    SCOPED_TRACE(b.why);
    EXPECT_EQ(block.Field<std::uint32_t>("FACP", b.offset), b.port);
    EXPECT_EQ(block.Field<std::uint64_t>("FACP", b.gas + 4), b.port);
    EXPECT_EQ(block.Field<std::uint8_t>("FACP", b.gas), b.port == 0 ? 0 : 1);
    EXPECT_EQ(block.Field<std::uint8_t>("FACP", b.gas + 1), b.bits);
  }
  EXPECT_EQ(block.Field<std::uint16_t>("FACP", 46), 9);      // SCI
  EXPECT_EQ(block.Field<std::uint32_t>("FACP", 48), 0xb2u);  // SMI_CMD
  EXPECT_EQ(block.Field<std::uint8_t>("FACP", 52), 0x02);
  EXPECT_EQ(block.Field<std::uint8_t>("FACP", 53), 0x03);
  EXPECT_EQ(block.Field<std::uint8_t>("FACP", 108), 0x32);              // century
  EXPECT_EQ(block.Field<std::uint16_t>("FACP", 109) & 2, 0);            // no 8042 probe
  EXPECT_EQ(block.Field<std::uint32_t>("FACP", 112) & (1u << 4), 0u);   // fixed power button
  EXPECT_NE(block.Field<std::uint32_t>("FACP", 112) & (1u << 10), 0u);  // reset register
  EXPECT_EQ(block.Field<std::uint64_t>("FACP", 120), 0xcf9u);
  EXPECT_EQ(block.Field<std::uint8_t>("FACP", 128), 0x0f);
}

TEST(AcpiTables, ListEveryCpuAsEnabledOrToCome) {
  AcpiConfig config = Config(6, 4, false);
  config.apic_ids = {0, 1, 4, 5, 254, 300};
  const Block block(config);
  const std::string& madt = block.tables.at("APIC");
  struct Cpu {
    std::uint32_t id;
    std::uint32_t flags;
    bool operator==(const Cpu&) const = default;
  };
  std::map<std::uint32_t, Cpu> cpus;  // by UID
  std::map<unsigned, unsigned> types;
  std::size_t offset = 44;
  while (offset + 2 <= madt.size()) {
    const auto type = block.Field<std::uint8_t>("APIC", offset);
    const auto length = block.Field<std::uint8_t>("APIC", offset + 1);
    ASSERT_GE(length, 6);
    ++types[type];
    if (type == 0)
      cpus[block.Field<std::uint8_t>("APIC", offset + 2)] = {
          block.Field<std::uint8_t>("APIC", offset + 3),
          block.Field<std::uint32_t>("APIC", offset + 4)};
    if (type == 9)
      cpus[block.Field<std::uint32_t>("APIC", offset + 12)] = {
          block.Field<std::uint32_t>("APIC", offset + 4),
          block.Field<std::uint32_t>("APIC", offset + 8)};
    offset += length;
  }
  EXPECT_EQ(offset, madt.size());
  const std::map<std::uint32_t, Cpu> want = {{0, {0, 1}}, {1, {1, 1}},   {2, {4, 1}},
                                             {3, {5, 1}}, {4, {254, 2}}, {5, {300, 2}}};
  EXPECT_EQ(cpus, want);
  EXPECT_EQ(types[1], 1u);   // I/O APIC
  EXPECT_EQ(types[2], 2u);   // interrupts 0 and 9
  EXPECT_EQ(types[4], 1u);   // NMI
  EXPECT_EQ(types[10], 1u);  // NMI of x2APICs
}

TEST(AcpiTables, AreAcceptedByIasl) {
  const struct {
    const char* why;
    AcpiConfig config;
    bool devices;
  } kCases[] = {
      {"one CPU, no devices", Config(1, 1, false), false},
      {"255 CPUs, some to come, all devices", Config(255, 200, true), true},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    const std::string text = Disassemble(Block(c.config));
    if (text.empty()) GTEST_SKIP() << "iasl is missing (package acpica-tools)";
    const auto says = [&text](const char* part) { return text.find(part) != std::string::npos; };
    EXPECT_TRUE(says("Name (\\_S5, Package (0x04)"));
    EXPECT_TRUE(says("EisaId (\"PNP0B00\")"));
    EXPECT_TRUE(says("EisaId (\"PNP0A08\")"));
    EXPECT_TRUE(says("CreateDWordField (Arg3"));
    EXPECT_TRUE(says("00000000B0000000")) << "MCFG";
    for (const char* const device : {"Device (COM1)", "Device (COM4)", "EisaId (\"PNP0501\")",
                                     "\"QEMU0001\"", "0x0505", "\"QEMUVGID\""}) {
      EXPECT_EQ(says(device), c.devices) << device;
    }
  }
}

}  // namespace
}  // namespace holdfast::machine::acpi
