// SPDX-License-Identifier: Apache-2.0
// -numa: what it accepts, and QEMU's sentences for what it refuses.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/options.h"

namespace holdfast::apps {
namespace {

using ::testing::ElementsAre;

using Words = std::vector<const char*>;

// A line with 128 MiB in two backends, 2 CPUs that may become 4 in 2 sockets, and `rest`.
Result<Options> Parse(const Words& rest) {
  Words all = {"-kernel", "k",
               "-m",      "128M",
               "-smp",    "2,maxcpus=4,sockets=2,cores=2",
               "-object", "memory-backend-guest-memfd,id=m0,size=64M",
               "-object", "memory-backend-guest-memfd,id=m1,size=64M"};
  all.insert(all.end(), rest.begin(), rest.end());
  return ParseCommandLine(all);
}

Options Good(const Words& rest) {
  auto options = Parse(rest);
  if (!options) {
    ADD_FAILURE() << options.error().ToString();
    return {};
  }
  return *std::move(options);
}

// Two nodes of one socket each; what follows is added.
Words Two(const Words& rest, const char* first = "node,memdev=m0,cpus=0-1",
          const char* second = "node,memdev=m1,cpus=2,cpus=3") {
  Words all = {"-numa", first, "-numa", second};
  for (const char* const word : rest) {
    if (*word != '-') all.push_back("-numa");
    all.push_back(word);
    if (std::string_view(word) == "-machine") all.push_back("hmat=on");
  }
  return all;
}

TEST(OptionsNuma, NodesHaveTheirCpusAndBackendsInTheOrderOfTheirIds) {
  const Options options = Good({"-numa", "node,nodeid=1,memdev=m0,cpus=0,cpus=2-3", "-numa",
                                "node,nodeid=0,cpus=1,memdev=m1", "-numa", "node,nodeid=2"});
  const auto& nodes = options.machine.numa.nodes;
  ASSERT_EQ(nodes.size(), 3U);
  EXPECT_THAT(nodes[0].cpus, ElementsAre(1));
  EXPECT_THAT(nodes[1].cpus, ElementsAre(0, 2, 3));
  EXPECT_TRUE(nodes[2].cpus.empty());
  EXPECT_EQ(nodes[0].size, 64ULL << 20);
  EXPECT_EQ(nodes[2].size, 0U);
  ASSERT_EQ(options.ram.size(), 2U);
  EXPECT_EQ(options.ram[0]->id(), "m1");
  EXPECT_EQ(options.ram[1]->id(), "m0");
  EXPECT_EQ(options.objects.Find("pc.ram"), nullptr);
  EXPECT_TRUE(options.warnings.empty());
}

TEST(OptionsNuma, JsonSaysTheSame) {
  const Options options =
      Good({"-numa", R"({"type": "node", "memdev": "m0", "cpus": [0, 2], "nodeid": 0})", "-numa",
            R"({"type": "node", "memdev": "m1", "cpus": ["1", "3"]})", "-numa",
            R"({"type": "dist", "src": 0, "dst": 1, "val": 33})"});
  ASSERT_EQ(options.machine.numa.nodes.size(), 2U);
  EXPECT_THAT(options.machine.numa.nodes[0].cpus, ElementsAre(0, 2));
  EXPECT_THAT(options.machine.numa.nodes[1].cpus, ElementsAre(1, 3));
  EXPECT_THAT(options.machine.numa.distances, ElementsAre(10, 33, 33, 10));
}

TEST(OptionsNuma, CpusThatNobodyNamesGoByTheirSocket) {
  const Options options = Good({"-numa", "node,memdev=m0", "-numa", "node,memdev=m1"});
  EXPECT_THAT(options.machine.numa.nodes[0].cpus, ElementsAre(0, 1));
  EXPECT_THAT(options.machine.numa.nodes[1].cpus, ElementsAre(2, 3));
  EXPECT_TRUE(options.warnings.empty());
}

TEST(OptionsNuma, CpusAreFoundByTheirPlace) {
  const Options options =
      Good({"-numa", "node,memdev=m0", "-numa", "node,memdev=m1", "-numa",
            "cpu,node-id=1,socket-id=0", "-numa", "cpu,node-id=0,socket-id=1,core-id=0,thread-id=0",
            "-numa", "cpu,node-id=1,core-id=1,socket-id=1"});
  EXPECT_THAT(options.machine.numa.nodes[0].cpus, ElementsAre(2));
  EXPECT_THAT(options.machine.numa.nodes[1].cpus, ElementsAre(0, 1, 3));
}

TEST(OptionsNuma, CpusThatOnlySomeOptionsLeaveOutGoToNode0WithQemusWarnings) {
  const Options options =
      Good({"-numa", "node,memdev=m0", "-numa", "node,memdev=m1,cpus=0,cpus=2"});
  EXPECT_THAT(options.machine.numa.nodes[0].cpus, ElementsAre(1, 3));
  EXPECT_THAT(
      options.warnings,
      ElementsAre("CPU(s) not present in any NUMA nodes: CPU 1 [socket-id: 0, core-id: 1, "
                  "thread-id: 0], CPU 3 [socket-id: 1, core-id: 1, thread-id: 0]",
                  "All CPU(s) up to maxcpus should be described in NUMA config, ability to start "
                  "up with partial NUMA mappings is obsoleted and will be removed in future"));
}

TEST(OptionsNuma, DistancesHoldBothWaysUnlessOnePairDiffers) {
  const struct {
    Words distances;
    std::vector<std::uint8_t> want;
  } cases[] = {
      {{}, {}},
      {{"dist,src=0,dst=1,val=15"}, {10, 15, 15, 10}},
      {{"dist,src=1,dst=0,val=255", "dist,src=0,dst=0,val=10"}, {10, 255, 255, 10}},
      {{"dist,src=0,dst=1,val=15", "dist,src=1,dst=0,val=16"}, {10, 15, 16, 10}},
      {{"dist,src=0,dst=1,val=15", "dist,src=0,dst=1,val=17"}, {10, 17, 17, 10}},
  };
  for (const auto& c : cases) EXPECT_EQ(Good(Two(c.distances)).machine.numa.distances, c.want);
}

TEST(OptionsNuma, HmatValuesAreKeptInTheLargestCommonUnit) {
  const Options options = Good(Two(
      {"-machine",
       "hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-latency,latency="
       "500",
       "hmat-lb,initiator=0,target=1,hierarchy=memory,data-type=access-latency,latency=1250",
       "hmat-lb,initiator=1,target=1,hierarchy=first-level,data-type=write-bandwidth,bandwidth=3G",
       "hmat-lb,initiator=1,target=1,hierarchy=memory,data-type=read-latency,latency=7",
       "hmat-cache,node-id=1,size=1M,level=1,associativity=direct,policy=write-through,line=64"}));
  const machine::NumaConfig& numa = options.machine.numa;
  EXPECT_TRUE(numa.hmat);
  EXPECT_EQ(numa.nodes[0].initiator, 0U);
  ASSERT_EQ(numa.localities.size(), 3U);
  EXPECT_EQ(numa.localities[0].base, 10U);
  ASSERT_EQ(numa.localities[0].entries.size(), 2U);
  EXPECT_EQ(numa.localities[0].entries[1].value, 1250U);
  EXPECT_EQ(numa.localities[1].base, 1ULL << 30);
  EXPECT_EQ(numa.localities[1].data_type, machine::HmatDataType::kWriteBandwidth);
  ASSERT_EQ(numa.caches.size(), 1U);
  EXPECT_EQ(numa.caches[0].associativity, machine::HmatCache::Associativity::kDirect);
  EXPECT_EQ(numa.caches[0].policy, machine::HmatCache::WritePolicy::kWriteThrough);
}

struct Case {
  Words arguments;
  std::string message;  // all of it
};

void Check(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    const auto options = Parse(c.arguments);
    ASSERT_FALSE(options) << c.message;
    EXPECT_EQ(options.error().message(), c.message);
    EXPECT_FALSE(options.error().hint().empty()) << c.message;
  }
}

// The one -numa option that is wrong behind `before`, and what is wrong with it.
Case Bad(Words before, const char* wrong, std::string_view message) {
  before.insert(before.end(), {"-numa", wrong});
  return {std::move(before), "-numa " + std::string(wrong) + ": " + std::string(message)};
}

TEST(OptionsNuma, RefusesWhatNoOptionMaySay) {
  Check({
      Bad({}, "foo", "Parameter 'type' does not accept value 'foo'"),
      Bad({}, "nodeid=0", "Parameter 'type' is missing"),
      Bad({}, "node,foo=1", "Invalid parameter 'foo'"),
      Bad({}, "node,cpus=x", "Parameter 'cpus' expects a uint64 value or range"),
      Bad({}, "node,cpus=3-1", "Parameter 'cpus' expects a uint64 value or range"),
      Bad({}, "node,cpus=70000", "Parameter 'null' expects uint16_t"),
      Bad({}, "node,nodeid=x", "Parameter 'nodeid' expects a uint64 value"),
      Bad({}, "node,nodeid=70000", "Parameter 'nodeid' expects uint16_t"),
      Bad({}, "dist,src=0,dst=1,val=300", "Parameter 'val' expects uint8_t"),
      Bad({}, "dist,src=0,val=20", "Parameter 'dst' is missing"),
      Bad({}, "cpu,node-id=x", "Parameter 'node-id' expects an int64 value"),
      Bad({}, "hmat-lb,initiator=0,target=0,hierarchy=memory", "Parameter 'data-type' is missing"),
      Bad({}, "hmat-lb,initiator=0,target=0,hierarchy=attic,data-type=read-latency",
          "Parameter 'hierarchy' does not accept value 'attic'"),
      Bad({}, "hmat-cache,node-id=0,size=1M,associativity=none,policy=none,line=8",
          "Parameter 'level' is missing"),
      Bad({}, "{\"type\": \"node\"", "JSON parse error, the argument is not a JSON object"),
      Bad({}, "{\"type\": \"node\", \"nodeid\": [0]}",
          "Invalid parameter type for 'nodeid', expected: string or integer"),
  });
}

TEST(OptionsNuma, RefusesWhatTheNodesCannotBe) {
  const Words first = {"-numa", "node,memdev=m0,cpus=0"};
  Check({
      Bad(first, "node,nodeid=0", "Duplicate NUMA nodeid: 0"),
      Bad({}, "node,nodeid=200", "Max number of NUMA nodes reached: 200"),
      Bad({}, "node,cpus=4", "CPU index (4) should be smaller than maxcpus (4)"),
      Bad(first, "node,cpus=0", "CPU is already assigned to node-id: 0"),
      Bad({}, "node,memdev=zz", "memdev=zz is ambiguous"),
      Bad({}, "node,mem=64M", "Parameter -numa node,mem is not supported by this machine type"),
      Bad(first, "node,mem=64M",
          "numa configuration should use either mem= or memdev=,mixing both is not allowed"),
      {{"-numa", "node,memdev=m0", "-numa", "node,nodeid=2,memdev=m1"}, "numa: Node ID missing: 1"},
      {{"-numa", "node,memdev=m0"},
       "total memory for NUMA nodes (0x4000000) should equal RAM size (0x8000000)"},
      {{"-numa", "node", "-numa", "node"},
       "total memory for NUMA nodes (0x0) should equal RAM size (0x8000000)"},
      {{"-numa", "node,memdev=m0", "-numa", "node,memdev=m0"},
       "memory backend m0 can't be used multiple times."},
      {{"-object", "memory-backend-guest-memfd,id=all,size=128M", "-machine", "memory-backend=all",
        "-numa", "node,memdev=m0", "-numa", "node,memdev=m1"},
       "'-machine memory-backend' and '-numa memdev' properties are mutually exclusive"},
      Bad({}, "cpu,socket-id=0", "Missing mandatory node-id property"),
      Bad({}, "cpu,node-id=0,socket-id=0",
          "Invalid node-id=0, NUMA node must be defined with -numa node,nodeid=ID before it's used "
          "with -numa cpu,node-id=ID"),
      Bad(first, "cpu,node-id=-1",
          "Invalid node-id=-1, NUMA node must be defined with -numa node,nodeid=ID before it's "
          "used with -numa cpu,node-id=ID"),
      Bad(first, "cpu,node-id=0,socket-id=7", "no match found"),
      Bad(first, "cpu,node-id=0,die-id=0", "die-id is not supported"),
      Bad(Two({}), "cpu,node-id=1,socket-id=0", "CPU is already assigned to node-id: 0"),
  });
}

TEST(OptionsNuma, RefusesDistancesThatCannotBe) {
  const Words two = Two({});
  const Words three = Two({"node"});
  Words missing = three;
  missing.insert(missing.end(), {"-numa", "dist,src=0,dst=1,val=20"});
  Words asymmetric = three;
  asymmetric.insert(asymmetric.end(),
                    {"-numa", "dist,src=0,dst=1,val=20", "-numa", "dist,src=1,dst=0,val=21",
                     "-numa", "dist,src=0,dst=2,val=20", "-numa", "dist,src=1,dst=2,val=20"});
  Check({
      Bad(two, "dist,src=0,dst=1,val=5",
          "NUMA distance (5) is invalid, it shouldn't be less than 10."),
      Bad(two, "dist,src=0,dst=0,val=11", "Local distance of node 0 should be 10."),
      Bad(two, "dist,src=0,dst=5,val=20",
          "Source/Destination NUMA node is missing. Please use '-numa node' option to declare it "
          "first."),
      Bad(two, "dist,src=0,dst=200,val=20", "Parameter 'dst' expects an integer between 0 and 127"),
      Bad(two, "dist,src=128,dst=0,val=20", "Parameter 'src' expects an integer between 0 and 127"),
      {missing,
       "The distance between node 0 and 2 is missing, at least one distance value between each "
       "nodes should be provided."},
      {asymmetric,
       "At least one asymmetrical pair of distances is given, please provide distances for both "
       "directions of all node pairs."},
  });
}

constexpr const char* kHmatOff =
    "ACPI Heterogeneous Memory Attribute Table (HMAT) is disabled, enable it with -machine hmat=on "
    "before using any of hmat specific options";
#define LB(rest) "hmat-lb,hierarchy=memory,data-type=" rest
#define CACHE(rest) "hmat-cache,associativity=none,policy=none,line=64," rest

TEST(OptionsNuma, RefusesHmatValuesThatCannotBe) {
  const Words off = Two({});
  const Words on = Two({"-machine"});
  const Words no_cpus = Two({"-machine"}, "node,memdev=m0,cpus=0-3", "node,memdev=m1,initiator=0");
  const Words latency = Two({"-machine", LB("access-latency,initiator=0,target=0,latency=10")});
  const Words bandwidth =
      Two({"-machine", LB("access-bandwidth,initiator=0,target=0,bandwidth=1M")});
  const Words both = Two({"-machine", LB("access-latency,initiator=0,target=0,latency=10"),
                          LB("access-bandwidth,initiator=0,target=0,bandwidth=1M")});
  const Words cache = Two({"-machine", LB("access-latency,initiator=0,target=0,latency=10"),
                           LB("access-bandwidth,initiator=0,target=0,bandwidth=1M"),
                           CACHE("node-id=0,size=1M,level=1")});
  Check({
      Bad({}, "node,initiator=0", kHmatOff),
      Bad(off, LB("read-latency,initiator=0,target=0,latency=1"), kHmatOff),
      Bad(off, CACHE("node-id=0,size=1M,level=1"), kHmatOff),
      Bad(on, LB("read-latency,initiator=5,target=0,latency=1"),
          "Invalid initiator=5, it should be less than 2"),
      Bad(on, LB("read-latency,initiator=0,target=5,latency=1"),
          "Invalid target=5, it should be less than 2"),
      Bad(no_cpus, LB("read-latency,initiator=1,target=0,latency=1"),
          "Invalid initiator=1, it isn't an initiator proximity domain"),
      Bad(on, LB("read-latency,initiator=0,target=0"), "Missing 'latency' option"),
      Bad(on, LB("read-bandwidth,initiator=0,target=0"), "Missing 'bandwidth' option"),
      Bad(on, LB("read-latency,initiator=0,target=0,latency=1,bandwidth=1M"),
          "Invalid option 'bandwidth' since the data type is latency"),
      Bad(on, LB("read-bandwidth,initiator=0,target=0,latency=1,bandwidth=1M"),
          "Invalid option 'latency' since the data type is bandwidth"),
      Bad(on, LB("read-bandwidth,initiator=0,target=0,bandwidth=100"),
          "Bandwidth 100 between initiator=0 and target=0 should be 1MB aligned"),
      Bad(latency, LB("access-latency,initiator=0,target=0,latency=10"),
          "Duplicate configuration of the latency for initiator=0 and target=0"),
      Bad(bandwidth, LB("access-bandwidth,initiator=0,target=0,bandwidth=1M"),
          "Duplicate configuration of the bandwidth for initiator=0 and target=0"),
      Bad(latency, LB("access-latency,initiator=0,target=1,latency=655350"),
          "Latency 655350 between initiator=0 and target=1 should not differ from previously "
          "entered min or max values on more than 65534"),
      Bad(bandwidth, LB("access-bandwidth,initiator=0,target=1,bandwidth=65535M"),
          "Bandwidth 68718428160 between initiator=0 and target=1 should not differ from "
          "previously entered values on more than 65534"),
      Bad(latency, CACHE("node-id=0,size=1M,level=1"),
          "The latency and bandwidth information of node-id=0 should be provided before memory "
          "side cache attributes"),
      Bad(both, CACHE("node-id=9,size=1M,level=1"), "Invalid node-id=9, it should be less than 2"),
      Bad(both, CACHE("node-id=0,size=1M,level=4"),
          "Invalid level=4, it should be larger than 0 and less than or equal to 3"),
      Bad(both, CACHE("node-id=0,size=1M,level=2"), "Cache level=1 shall be defined first"),
      Bad(cache, CACHE("node-id=0,size=1M,level=1"),
          "Duplicate configuration of the side cache for node-id=0 and level=1"),
      Bad(cache, CACHE("node-id=0,size=1M,level=2"),
          "Invalid size=1048576, the size of level=2 should be larger than the size(1048576) of "
          "level=1"),
  });
}

TEST(OptionsNuma, RefusesInitiatorsThatHaveNoCpus) {
  Words base = {"-machine", "hmat=on"};
  const auto with = [&](std::initializer_list<const char*> nodes) {
    Words all = base;
    for (const char* const node : nodes) all.insert(all.end(), {"-numa", node});
    return all;
  };
  Check({
      {with({"node,memdev=m0,cpus=0-3", "node,memdev=m1"}),
       "The initiator of NUMA node 1 is missing, use '-numa node,initiator' option to declare it"},
      {with({"node,memdev=m0,cpus=0-3", "node,memdev=m1,initiator=5"}),
       "NUMA node 5 is missing, use '-numa node' option to declare it first"},
      {with({"node,memdev=m0,cpus=0-3", "node,memdev=m1,initiator=1"}),
       "The initiator of NUMA node 1 is invalid"},
      Bad(base, "node,memdev=m0,cpus=0-3,initiator=1",
          "The initiator of CPU NUMA node 0 should be itself (got 1)"),
      Bad(base, "node,memdev=m0,initiator=128",
          "The initiator id 128 expects an integer between 0 and 127"),
  });
}

TEST(OptionsNuma, HelpListsTheProperties) {
  const auto options = ParseCommandLine(Words{"-numa", "help"});
  ASSERT_TRUE(options);
  ASSERT_TRUE(options->print);
  EXPECT_THAT(*options->print, ::testing::HasSubstr("hmat-cache options:"));
}

}  // namespace
}  // namespace holdfast::apps
