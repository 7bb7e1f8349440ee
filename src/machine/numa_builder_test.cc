// SPDX-License-Identifier: Apache-2.0
// What follows from correct options. What is refused, and how it is said, is in the tests of the
// command line (apps/options_numa_test.cc).
#include "machine/numa_builder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <holdfast/units.h>

namespace holdfast::machine {
namespace {

using ::testing::ElementsAre;

constexpr CpuTopology Topology(unsigned sockets, unsigned cores, unsigned threads) {
  const unsigned cpus = sockets * cores * threads;
  return {cpus, cpus, sockets, cores, threads};
}

// Every backend has 1 GiB.
NumaBuilder Builder(const CpuTopology& topology, bool hmat = false) {
  return {topology, hmat, [](std::string_view) { return std::optional(kGiB); }};
}

NumaConfig Finish(NumaBuilder& builder, std::uint64_t ram) {
  std::vector<std::string> warnings;
  auto config = builder.Finish(ram, false, warnings);
  EXPECT_TRUE(config) << config.error().ToString();
  EXPECT_THAT(warnings, ElementsAre());
  return config ? *config : NumaConfig{};
}

void AddNodes(NumaBuilder& builder, unsigned count) {
  for (unsigned i = 0; i < count; ++i) {
    NumaNodeOption node;
    node.memdev = "m" + std::to_string(i);
    const Status added = builder.Add(node);
    EXPECT_TRUE(added) << added.error().ToString();
  }
}

TEST(NumaBuilder, WithoutNodesThereIsNoNuma) {
  NumaBuilder builder = Builder(Topology(1, 2, 1));
  const NumaConfig config = Finish(builder, kGiB);
  EXPECT_FALSE(config.enabled());
  EXPECT_FALSE(config.NodeOfCpu(0));
}

TEST(NumaBuilder, SocketsAreDealtOutToTheNodesInTurn) {
  const struct {
    CpuTopology topology;
    unsigned nodes;
    std::vector<unsigned> node_of_cpu;
  } cases[] = {
      {Topology(1, 3, 1), 2, {0, 0, 0}},
      {Topology(3, 1, 1), 2, {0, 1, 0}},
      {Topology(2, 1, 2), 3, {0, 0, 1, 1}},
      {Topology(5, 1, 1), 5, {0, 1, 2, 3, 4}},
  };
  for (const auto& c : cases) {
    NumaBuilder builder = Builder(c.topology);
    AddNodes(builder, c.nodes);
    const NumaConfig config = Finish(builder, c.nodes * kGiB);
    for (unsigned cpu = 0; cpu < c.node_of_cpu.size(); ++cpu)
      EXPECT_EQ(config.NodeOfCpu(cpu), c.node_of_cpu[cpu]) << cpu;
  }
}

TEST(NumaBuilder, TheMostNodesAndCpusFit) {
  NumaBuilder builder = Builder(Topology(kMaxCpus, 1, 1));
  AddNodes(builder, kMaxNumaNodes);
  const NumaConfig config = Finish(builder, kMaxNumaNodes * kGiB);
  EXPECT_EQ(config.nodes.size(), kMaxNumaNodes);
  EXPECT_THAT(config.nodes[126].cpus, ElementsAre(126, 254));
  EXPECT_FALSE(builder.Add(NumaNodeOption{}));
}

TEST(NumaBuilder, DistancesThatNobodyGivesAreTheUsualOnes) {
  NumaBuilder builder = Builder(Topology(1, 1, 1));
  AddNodes(builder, 2);
  const NumaConfig config = Finish(builder, 2 * kGiB);
  EXPECT_TRUE(config.distances.empty());
  EXPECT_EQ(config.Distance(1, 1), kLocalDistance);
  EXPECT_EQ(config.Distance(0, 1), kDefaultDistance);
}

TEST(NumaBuilder, TheUnitOfAKindDividesAllItsValues) {
  const struct {
    const char* why;
    HmatDataType type;
    std::vector<std::uint64_t> values;
    std::uint64_t base;  // 0: the last value is refused
  } cases[] = {
      {"tens of ns", HmatDataType::kReadLatency, {100, 250}, 10},
      {"one ns", HmatDataType::kReadLatency, {100, 7}, 1},
      {"unknown values count nothing", HmatDataType::kReadLatency, {0, 500}, 100},
      {"the largest that fits", HmatDataType::kReadLatency, {1, 65534}, 1},
      {"reserved", HmatDataType::kReadLatency, {1, 65535}, 0},
      {"refused whatever the order", HmatDataType::kReadLatency, {655350, 1}, 0},
      {"does not fit picoseconds", HmatDataType::kReadLatency, {~0ULL / 10 * 10 / 10, 1}, 0},
      {"1 GiB/s", HmatDataType::kAccessBandwidth, {kGiB, 3 * kGiB}, kGiB},
      {"1 MiB/s", HmatDataType::kAccessBandwidth, {kGiB, kMiB}, kMiB},
      {"the largest bandwidth that fits",
       HmatDataType::kAccessBandwidth,
       {kMiB, 65534 * kMiB},
       kMiB},
      {"too far apart", HmatDataType::kAccessBandwidth, {kMiB, 65535 * kMiB}, 0},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.why);
    NumaBuilder builder = Builder(Topology(2, 1, 1), true);
    for (unsigned id = 0; id < 2; ++id) {
      NumaNodeOption node;
      node.cpus = {id};
      node.memdev = "m" + std::to_string(id);
      ASSERT_TRUE(builder.Add(node));
    }
    bool all = true;
    for (std::size_t i = 0; i < c.values.size(); ++i) {
      NumaHmatLbOption option;
      option.target = i;
      option.data_type = c.type;
      (IsLatency(c.type) ? option.latency : option.bandwidth) = c.values[i];
      all = builder.Add(option) && all;
    }
    EXPECT_EQ(all, c.base != 0);
    if (c.base == 0) continue;
    const NumaConfig config = Finish(builder, 2 * kGiB);
    ASSERT_EQ(config.localities.size(), 1U);
    EXPECT_EQ(config.localities[0].base, c.base);
    EXPECT_EQ(config.localities[0].entries.size(), c.values.size());
  }
}

}  // namespace
}  // namespace holdfast::machine
