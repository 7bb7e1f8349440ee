// SPDX-License-Identifier: Apache-2.0
// What Linux makes of -numa: nodes, CPUs, sizes, distances and memory attributes, as its sysfs
// shows them. One boot answers all of it.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <sstream>

#include "system/linux_guest.h"
#include "system/process_memory.h"

namespace holdfast::test {
namespace {

class LinuxNuma : public LinuxTest {
 protected:
  // A kernel's line without memory options: they are the test's.
  static Arguments Guest(std::string_view words) {
    return {"-nographic",
            "-kernel",
            std::getenv("HOLDFAST_KERNEL"),
            "-initrd",
            std::getenv("HOLDFAST_INITRD"),
            "-append",
            fmt::format("console=ttyS0 quiet panic=-1 hf.do=none {}", words)};
  }
};

// Prints each file named behind it as "hf: PATH=CONTENT", its lines joined by '|'; PATH is that
// below /sys/devices/system/node.
constexpr std::string_view kScript =
    "cd /sys/devices/system/node\n"
    "show() { for f in \"$@\"; do [ ! -f $f ] || "
    "echo \"hf: $f=$(busybox tr '\\n' '|' <$f)\"; done; }\n"
    "show online has_cpu has_memory node*/cpulist node*/distance\n"
    "show node*/access0/initiators/read_latency node*/access0/initiators/write_latency\n"
    "show node*/access0/initiators/read_bandwidth node*/access0/initiators/write_bandwidth\n"
    "show node*/memory_side_cache/index1/size node*/memory_side_cache/index1/indexing\n"
    "show node*/memory_side_cache/index1/write_policy node*/memory_side_cache/index1/line_size\n"
    "for n in node*; do\n"
    "  for i in $n/access0/initiators/node*; do\n"
    "    [ ! -e $i ] || echo \"hf: $n/initiator=${i##*/}\"\n"
    "  done\n"
    "done\n"
    "busybox awk '/^Node/ { n = $2 + 0 } $1 == \"present\" { p[n] += $2 } "
    "END { for (n in p) print \"hf: node\" n \"/pages=\" p[n] }' /proc/zoneinfo\n"
    "busybox dmesg >/tmp/log\n"
    "busybox grep -iE 'srat|slit|hmat|numa' /tmp/log | busybox sed 's/^/log: /'\n"
    "echo \"hf: complaints=$(busybox grep -ciE 'firmware bug|acpi.*error|hmat.*(fail|invalid)' "
    "/tmp/log)\"\n"
    "echo hf: done\n"
    "read line\n";

// The `hf: key=value` lines up to `hf: done`.
std::map<std::string, std::string> Ask(MonitorProcess& monitor) {
  auto facts = ReadReport(monitor);
  for (auto& [key, value] : facts) {
    while (!value.empty() && value.back() == '|') value.pop_back();
  }
  return facts;
}

// All of a node's memory but the hole of the first MiB.
void ExpectMemory(const std::map<std::string, std::string>& facts, const std::string& node,
                  std::uint64_t bytes) {
  const auto found = facts.find(node + "/pages");
  ASSERT_NE(found, facts.end()) << node;
  const std::uint64_t seen = std::strtoull(found->second.c_str(), nullptr, 10) * kPageSize;
  EXPECT_LE(seen, bytes) << node;
  EXPECT_GE(seen, bytes - (node == "node0" ? kMiB : 0)) << node;
}

TEST_F(LinuxNuma, SeesTheNodesTheirDistancesAndTheirAttributes) {
  MonitorProcess monitor(
      Guest(ScriptWord(kScript)) +
      Arguments{"-m", "448M", "-smp", "4,sockets=2,cores=2", "-machine", "q35,hmat=on",
                // Three kinds of blocks, the third in a node without CPUs.
                "-object", "memory-backend-guest-memfd,id=ram0,size=192M", "-object",
                "memory-backend-guest-memfd,id=ram1,size=128M,bind=on", "-object",
                "memory-backend-memfd,id=ram2,size=128M", "-numa",
                "node,nodeid=0,memdev=ram0,cpus=0,cpus=3", "-numa",
                "node,nodeid=1,memdev=ram1,cpus=1-2", "-numa",
                "node,nodeid=2,memdev=ram2,initiator=1", "-numa", "dist,src=0,dst=1,val=21",
                "-numa", "dist,src=0,dst=2,val=40", "-numa", "dist,src=1,dst=2,val=30", "-numa",
                "hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-latency,"
                "latency=50",
                "-numa",
                "hmat-lb,initiator=1,target=1,hierarchy=memory,data-type=access-latency,"
                "latency=60",
                "-numa",
                "hmat-lb,initiator=1,target=2,hierarchy=memory,data-type=access-latency,"
                "latency=250",
                "-numa",
                "hmat-lb,initiator=0,target=0,hierarchy=memory,data-type=access-bandwidth,"
                "bandwidth=10G",
                "-numa",
                "hmat-lb,initiator=1,target=1,hierarchy=memory,data-type=access-bandwidth,"
                "bandwidth=9G",
                "-numa",
                "hmat-lb,initiator=1,target=2,hierarchy=memory,data-type=access-bandwidth,"
                "bandwidth=2G",
                "-numa",
                "hmat-cache,node-id=2,size=16M,level=1,associativity=direct,"
                "policy=write-back,line=64"});
  ASSERT_TEXT(monitor, kInitLine);
  const auto facts = Ask(monitor);
  const std::pair<const char*, const char*> kWanted[] = {
      {"complaints", "0"},
      {"online", "0-2"},
      {"has_cpu", "0-1"},
      {"has_memory", "0-2"},
      {"node0/cpulist", "0,3"},
      {"node1/cpulist", "1-2"},
      {"node2/cpulist", ""},
      {"node0/distance", "10 21 40"},
      {"node1/distance", "21 10 30"},
      {"node2/distance", "40 30 10"},
      {"node0/initiator", "node0"},
      {"node1/initiator", "node1"},
      {"node2/initiator", "node1"},
      // Nanoseconds and MiB a second.
      {"node0/access0/initiators/read_latency", "50"},
      {"node0/access0/initiators/write_latency", "50"},
      {"node1/access0/initiators/read_latency", "60"},
      {"node2/access0/initiators/read_latency", "250"},
      {"node2/access0/initiators/write_latency", "250"},
      {"node0/access0/initiators/read_bandwidth", "10240"},
      {"node1/access0/initiators/write_bandwidth", "9216"},
      {"node2/access0/initiators/read_bandwidth", "2048"},
      {"node2/memory_side_cache/index1/size", "16777216"},
      {"node2/memory_side_cache/index1/indexing", "0"},
      {"node2/memory_side_cache/index1/write_policy", "0"},
      {"node2/memory_side_cache/index1/line_size", "64"},
  };
  for (const auto& [key, value] : kWanted) {
    const auto found = facts.find(key);
    ASSERT_NE(found, facts.end()) << key << "\n" << monitor.Describe();
    EXPECT_EQ(found->second, value) << key;
  }
  ExpectMemory(facts, "node0", 192 * kMiB);
  ExpectMemory(facts, "node1", 128 * kMiB);
  ExpectMemory(facts, "node2", 128 * kMiB);
  monitor.Send("\n");
  EXPECT_ENDS(monitor, 0);
  EXPECT_EQ(monitor.errors(), "");
}

// The placement on the host, verified page by page from outside, and the nodes of the guest, from
// inside, of the same two blocks.
TEST_F(LinuxNuma, LiesOnTheHostsNodesAsAsked) {
  constexpr std::uint64_t kRam0 = 160 * kMiB;
  constexpr std::uint64_t kRam1 = 96 * kMiB;
  MonitorProcess monitor(
      Guest(ScriptWord(kScript)) +
      Arguments{"-m", "256M", "-smp", "2,sockets=2,cores=1", "-object",
                fmt::format("memory-backend-guest-memfd,id=ram0,size={},host-nodes=0-1,"
                            "policy=interleave,prealloc=on",
                            kRam0),
                "-object",
                fmt::format("memory-backend-guest-memfd,id=ram1,size={},host-nodes=1,policy=bind,"
                            "prealloc=on",
                            kRam1),
                "-numa", "node,memdev=ram0", "-numa", "node,memdev=ram1"});
  ASSERT_TEXT(monitor, kInitLine);
  auto facts = Ask(monitor);
  EXPECT_EQ(facts["online"], "0-1") << monitor.Describe();
  EXPECT_EQ(facts["node0/cpulist"], "0");
  EXPECT_EQ(facts["node1/cpulist"], "1");
  ExpectMemory(facts, "node0", kRam0);
  ExpectMemory(facts, "node1", kRam1);

  const auto blocks = GuestMemfdNodesOf(monitor.pid());
  ASSERT_EQ(blocks.size(), 2U);
  for (const std::vector<int>& nodes : blocks) {
    const auto on = [&nodes](int node) {
      return static_cast<std::uint64_t>(std::ranges::count(nodes, node));
    };
    if (nodes.size() == kRam1 / kPageSize) {
      EXPECT_EQ(on(1), nodes.size()) << "all of ram1 is on node 1";
      continue;
    }
    ASSERT_EQ(nodes.size(), kRam0 / kPageSize);
    EXPECT_EQ(on(0) + on(1), nodes.size());
    EXPECT_NEAR(static_cast<double>(on(0)), static_cast<double>(on(1)),
                static_cast<double>(nodes.size()) / 100)
        << "ram0 is spread evenly";
  }
  monitor.Send("\n");
  EXPECT_ENDS(monitor, 0);
  EXPECT_EQ(monitor.errors(), "");
}

// The second block begins below the hole under 4 GiB and ends above it, and no node has its CPUs
// named: they go by their sockets. A node has CPUs but no memory.
TEST_F(LinuxNuma, SeesABlockOnBothSidesOfTheHoleAndANodeWithoutMemory) {
  MonitorProcess monitor(Guest(ScriptWord(kScript)) +
                         Arguments{"-m", "3G", "-smp", "3,sockets=3,cores=1", "-object",
                                   "memory-backend-guest-memfd,id=ram0,size=1G", "-object",
                                   "memory-backend-guest-memfd,id=ram1,size=2G", "-numa",
                                   "node,memdev=ram0", "-numa", "node,memdev=ram1", "-numa",
                                   "node"});
  ASSERT_TEXT(monitor, kInitLine);
  auto facts = Ask(monitor);
  EXPECT_EQ(facts["has_cpu"], "0-2") << monitor.Describe();
  EXPECT_EQ(facts["has_memory"], "0-1");
  EXPECT_EQ(facts["node0/cpulist"], "0");
  EXPECT_EQ(facts["node1/cpulist"], "1");
  EXPECT_EQ(facts["node2/cpulist"], "2");
  EXPECT_EQ(facts["node0/distance"], "10 20 20");
  EXPECT_FALSE(facts.contains("node0/access0/initiators/read_latency"));
  ExpectMemory(facts, "node0", kGiB);
  ExpectMemory(facts, "node1", 2 * kGiB);
  monitor.Send("\n");
  EXPECT_ENDS(monitor, 0);
  EXPECT_EQ(monitor.errors(), "");
}

}  // namespace
}  // namespace holdfast::test
