// SPDX-License-Identifier: Apache-2.0
#include "machine/acpi/numa_tables.h"

#include <gtest/gtest.h>

#include <holdfast/units.h>

#include "machine/acpi/test_tables.h"
#include "machine/boot/layout.h"
#include "machine/config.h"

namespace holdfast::machine::acpi {
namespace {

// Nodes of `size` each, CPUs dealt out in turn to the first `cpu_nodes` of them.
AcpiConfig Config(unsigned nodes, std::uint64_t size, unsigned cpus, unsigned cpu_nodes) {
  AcpiConfig config;
  config.enabled_cpus = cpus;
  config.numa.nodes.resize(nodes);
  std::vector<std::uint64_t> sizes;
  for (NumaNode& node : config.numa.nodes) {
    node.size = size;
    sizes.push_back(size);
  }
  for (unsigned i = 0; i < cpus; ++i) {
    config.apic_ids.push_back(i);
    config.numa.nodes[i % cpu_nodes].cpus.push_back(i);
  }
  const auto plan = boot::PlanRam(nodes * size, 40);
  EXPECT_TRUE(plan);
  if (plan) config.memory = boot::SplitRam(*plan, sizes);
  return config;
}

void AddHmat(NumaConfig& numa, unsigned kinds) {
  numa.hmat = true;
  for (unsigned kind = 0; kind < kinds; ++kind) {
    HmatLocality table;
    table.hierarchy = static_cast<HmatHierarchy>(kind / kHmatDataTypes);
    table.data_type = static_cast<HmatDataType>(kind % kHmatDataTypes);
    table.base = IsLatency(table.data_type) ? 1 : kMiB;
    for (unsigned from = 0; from < numa.nodes.size(); ++from) {
      if (numa.nodes[from].cpus.empty()) continue;
      for (unsigned to = 0; to < numa.nodes.size(); ++to)
        table.entries.push_back({from, to, table.base * (from == to ? 10 : 20)});
    }
    numa.localities.push_back(std::move(table));
  }
}

struct Affinity {
  unsigned node;
  std::uint64_t base;
  std::uint64_t size;
  bool operator==(const Affinity&) const = default;
};

TEST(NumaTables, TheSratPutsEveryCpuAndEveryPieceOfMemoryIntoItsNode) {
  AcpiConfig config = Config(3, kGiB, 4, 2);
  config.apic_ids[3] = 300;
  const Block block(config);
  const std::string& srat = block.tables.at("SRAT");
  std::map<std::uint32_t, unsigned> cpus;
  std::vector<Affinity> memory;
  std::size_t offset = 48;
  while (offset + 2 <= srat.size()) {
    const auto type = block.Field<std::uint8_t>("SRAT", offset);
    const auto length = block.Field<std::uint8_t>("SRAT", offset + 1);
    ASSERT_GE(length, 16);
    if (type == 0) {
      EXPECT_EQ(block.Field<std::uint32_t>("SRAT", offset + 4), 1u);
      cpus[block.Field<std::uint8_t>("SRAT", offset + 3)] =
          block.Field<std::uint8_t>("SRAT", offset + 2);
    } else if (type == 2) {
      EXPECT_EQ(block.Field<std::uint32_t>("SRAT", offset + 12), 1u);
      cpus[block.Field<std::uint32_t>("SRAT", offset + 8)] =
          block.Field<std::uint32_t>("SRAT", offset + 4);
    } else {
      ASSERT_EQ(type, 1);
      EXPECT_EQ(block.Field<std::uint32_t>("SRAT", offset + 28), 1u) << "enabled, not hot-plug";
      memory.push_back({block.Field<std::uint32_t>("SRAT", offset + 2),
                        block.Field<std::uint64_t>("SRAT", offset + 8),
                        block.Field<std::uint64_t>("SRAT", offset + 16)});
    }
    offset += length;
  }
  EXPECT_EQ(offset, srat.size());
  EXPECT_EQ(cpus, (std::map<std::uint32_t, unsigned>{{0, 0}, {1, 1}, {2, 0}, {300, 1}}));
  // 3 GiB are split at 2 GiB; from 640 KiB to 1 MiB there is no RAM.
  EXPECT_EQ(memory,
            (std::vector<Affinity>{
                {0, 0, 0xa0000}, {0, kMiB, kGiB - kMiB}, {1, kGiB, kGiB}, {2, 4 * kGiB, kGiB}}));
}

TEST(NumaTables, TheSlitHoldsTheDistancesAndIsThereOnlyIfGiven) {
  AcpiConfig config = Config(2, kMiB, 1, 1);
  EXPECT_FALSE(Block(config).tables.contains("SLIT"));
  config.numa.distances = {10, 21, 31, 10};
  const Block block(config);
  EXPECT_EQ(block.Field<std::uint64_t>("SLIT", 36), 2u);
  EXPECT_EQ(block.tables.at("SLIT").substr(44), (std::string{10, 21, 31, 10}));
}

TEST(NumaTables, TheHmatHasInitiatorsMatricesAndCaches) {
  AcpiConfig config = Config(3, kMiB, 2, 2);
  NumaConfig& numa = config.numa;
  numa.hmat = true;
  numa.nodes[2].initiator = 1;
  numa.localities = {{.hierarchy = HmatHierarchy::kMemory,
                      .data_type = HmatDataType::kAccessLatency,
                      .base = 10,
                      .entries = {{0, 0, 100}, {1, 2, 250}}},
                     {.hierarchy = HmatHierarchy::kFirstLevel,
                      .data_type = HmatDataType::kReadBandwidth,
                      .base = 512 * kMiB,
                      .entries = {{1, 0, 3 * kGiB}}}};
  numa.caches = {{.node = 1,
                  .size = 8 * kMiB,
                  .level = 1,
                  .associativity = HmatCache::Associativity::kComplex,
                  .policy = HmatCache::WritePolicy::kWriteBack,
                  .line = 64},
                 {.node = 1, .size = 16 * kMiB, .level = 2}};
  const Block block(config);
  const auto u8 = [&](std::size_t at) { return block.Field<std::uint8_t>("HMAT", at); };
  const auto u16 = [&](std::size_t at) { return block.Field<std::uint16_t>("HMAT", at); };
  const auto u32 = [&](std::size_t at) { return block.Field<std::uint32_t>("HMAT", at); };
  const auto u64 = [&](std::size_t at) { return block.Field<std::uint64_t>("HMAT", at); };
  EXPECT_EQ(u8(8), 2) << "revision";
  std::size_t at = 40;
  for (const unsigned node : {0u, 1u, 2u}) {
    EXPECT_EQ(u16(at), 0);
    EXPECT_EQ(u32(at + 4), 40u);
    EXPECT_EQ(u16(at + 8), 1) << "the initiator is valid";
    EXPECT_EQ(u32(at + 12), node == 0 ? 0u : 1u);
    EXPECT_EQ(u32(at + 16), node);
    at += 40;
  }
  const std::size_t matrix_size = 32 + 4 * 2 + 4 * 3 + 2 * 6;
  const struct {
    unsigned hierarchy, type;
    std::uint64_t base;
    std::vector<std::uint16_t> entries;
  } kMatrices[] = {{0, 0, 10'000, {10, 0, 0, 0, 0, 25}}, {1, 4, 512, {0, 0, 0, 6, 0, 0}}};
  for (const auto& matrix : kMatrices) {
    EXPECT_EQ(u16(at), 1);
    EXPECT_EQ(u32(at + 4), matrix_size);
    EXPECT_EQ(u8(at + 8), matrix.hierarchy);
    EXPECT_EQ(u8(at + 9), matrix.type);
    EXPECT_EQ(u32(at + 12), 2u);
    EXPECT_EQ(u32(at + 16), 3u);
    EXPECT_EQ(u64(at + 24), matrix.base);
    EXPECT_EQ(u32(at + 36), 1u) << "the second initiator";
    for (std::size_t i = 0; i < matrix.entries.size(); ++i)
      EXPECT_EQ(u16(at + 52 + 2 * i), matrix.entries[i]) << i;
    at += matrix_size;
  }
  EXPECT_EQ(u16(at), 2);
  EXPECT_EQ(u32(at + 4), 32u);
  EXPECT_EQ(u32(at + 8), 1u);
  EXPECT_EQ(u64(at + 16), 8 * kMiB);
  EXPECT_EQ(u32(at + 24), 64u << 16 | 1u << 12 | 2u << 8 | 1u << 4 | 2u);
  EXPECT_EQ(u32(at + 32 + 24), 2u << 4 | 2u);
  EXPECT_EQ(block.tables.at("HMAT").size(), at + 64);
}

TEST(NumaTables, AreAcceptedByIasl) {
  AcpiConfig small = Config(2, kGiB, 2, 2);
  AcpiConfig large = Config(kMaxNumaNodes, 4 * kGiB, kMaxCpus, 2);
  for (std::uint32_t& id : large.apic_ids) id *= 2;  // some of them x2APIC ids
  for (AcpiConfig* const config : {&small, &large}) {
    NumaConfig& numa = config->numa;
    const std::size_t nodes = numa.nodes.size();
    SCOPED_TRACE(nodes);
    for (std::size_t i = 0; i < nodes * nodes; ++i)
      numa.distances.push_back(i % nodes == i / nodes ? 10 : 20);
    AddHmat(numa, kHmatHierarchies * kHmatDataTypes);
    numa.caches = {{.node = 1, .size = kMiB, .level = 1, .line = 64}};
    const std::string text = Disassemble(Block(*config));
    if (text.empty()) GTEST_SKIP() << "iasl is missing (package acpica-tools)";
    for (const char* const part :
         {"System Resource Affinity Table", "System Locality Information Table",
          "Heterogeneous Memory Attributes Table", "Processor Local APIC/SAPIC Affinity"})
      EXPECT_NE(text.find(part), std::string::npos) << part;
  }
}

TEST(NumaTables, MoreThanTheAreaHoldsIsRefused) {
  AcpiConfig config = Config(kMaxNumaNodes, kMiB, kMaxCpus, kMaxNumaNodes);
  config.numa.distances.assign(std::size_t{kMaxNumaNodes} * kMaxNumaNodes, 10);
  for (std::uint32_t& id : config.apic_ids) id += 1000;
  AddHmat(config.numa, 1);
  for (unsigned node = 0; node < kMaxNumaNodes; ++node)
    for (std::uint8_t level = 1; level <= 3; ++level)
      config.numa.caches.push_back({.node = node, .size = level * kMiB, .level = level});
  const auto fits = BuildAcpi(config);
  ASSERT_TRUE(fits) << fits.error().ToString();
  EXPECT_LE(fits->bytes.size(), boot::kAcpiArea.size);
  config.numa.localities.clear();
  AddHmat(config.numa, 24);
  const auto refused = BuildAcpi(config);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message().find("128 KiB"), std::string::npos);
  EXPECT_NE(refused.error().hint().find("hmat-lb"), std::string::npos);
}

}  // namespace
}  // namespace holdfast::machine::acpi
