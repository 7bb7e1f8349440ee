// SPDX-License-Identifier: Apache-2.0
// Snapshots of guests with two nodes of memory in backends of different types: restored, the memory
// lies where it lay; into other nodes it is not restored.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>
#include <signal.h>

#include <algorithm>
#include <memory>
#include <set>
#include <sstream>
#include <string>

#include "system/device_guest.h"
#include "system/native_snapshot.h"
#include "system/process_memory.h"

namespace holdfast::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// The guest writes 8 MiB from 16 MiB on, half in each node.
constexpr const char* kWritten = "8";

Arguments Nodes(const std::string& ram0, const std::string& ram1) {
  return {"-smp",    "2,sockets=2,cores=1",
          "-object", "memory-backend-" + ram0 + ",id=ram0",
          "-object", "memory-backend-" + ram1 + ",id=ram1",
          "-numa",   "node,memdev=ram0,cpus=0",
          "-numa",   "node,memdev=ram1,cpus=1"};
}

// The placements that a process has given to mappings of its own: "bind:0", …
std::set<std::string> PoliciesOf(pid_t pid) {
  std::set<std::string> policies;
  std::istringstream maps(ReadAll(fmt::format("/proc/{}/numa_maps", pid)));
  for (std::string line; std::getline(maps, line);) {
    std::istringstream words(line);
    std::string address;
    std::string policy;
    words >> address >> policy;
    if (policy != "default") policies.insert(policy);
  }
  return policies;
}

TEST_F(NativeSnapshot, TwoNodesAreRestoredInMemoryOfTheirOwnKinds) {
  const struct {
    const char* ram0;
    const char* ram1;
  } cases[] = {
      {"guest-memfd,size=20M", "memfd,guest-memfd=off,size=12M"},
      {"memfd,guest-memfd=off,size=20M,policy=bind,host-nodes=0",
       "ram,size=12M,policy=preferred,host-nodes=0"},
      {"ram,size=20M,policy=interleave,host-nodes=0", "guest-memfd,size=12M,bind=on"},
  };
  for (const auto& [ram0, ram1] : cases) {
    SCOPED_TRACE(fmt::format("{} and {}", ram0, ram1));
    const Arguments nodes = Nodes(ram0, ram1);
    MonitorProcess monitor(Guest(nodes, kWritten));
    ASSERT_TEXT(monitor, "round 1 ok");
    const auto policies = PoliciesOf(monitor.pid());
    Save(Path("a"));
    Save(Path("b"), {"--live", "--diff", Path("a")});
    ASSERT_NO_FATAL_FAILURE(Kill(monitor));
    for (const char* const how : {"", ",prefault=on"}) {
      MonitorProcess restored(
          Guest(nodes + Arguments{"-incoming", "file:" + Path("b") + how}, kWritten));
      ExpectRight(restored);
      // A save waits until all memory has been read.
      Save(Path("c"));
      EXPECT_EQ(PoliciesOf(restored.pid()), policies) << how;
    }
  }
}

TEST_F(NativeSnapshot, OtherNodesAreRefusedInASentence) {
  const std::string half = "guest-memfd,size=16M";
  MonitorProcess monitor(Guest(Nodes(half, half)));
  ASSERT_TEXT(monitor, "round 1 ok");
  Save(Path("a"));
  ASSERT_NO_FATAL_FAILURE(Kill(monitor));
  Arguments swapped = Nodes(half, half);
  swapped[7] = "node,memdev=ram1,cpus=0";
  swapped[9] = "node,memdev=ram0,cpus=1";
  Arguments cpus = Nodes(half, half);
  cpus[7] = "node,memdev=ram0,cpus=1";
  cpus[9] = "node,memdev=ram1,cpus=0";
  const Arguments one{"-smp", "2,sockets=2,cores=1"};
  const struct {
    Arguments line;
    const char* says;
  } cases[] = {
      {swapped, "NUMA node 0 has 16777216 bytes, 'ram0' and this one's 16777216 bytes, 'ram1'"},
      {cpus, "NUMA node 0 has the CPUs [0] and this one's [1]"},
      {Nodes(half, half) + Arguments{"-numa", "dist,src=0,dst=1,val=30"}, "other distances"},
      {Nodes("guest-memfd,size=20M", "guest-memfd,size=12M"), "the memory 'ram0' is of 16 MiB"},
      {one, "has no memory 'pc.ram'"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.says);
    MonitorProcess other(Guest(c.line + Arguments{"-incoming", "file:" + Path("a")}));
    EXPECT_ENDS(other, 1);
    EXPECT_THAT(other.errors(), HasSubstr(c.says));
  }
}

// On a host with two nodes: every page of what has a place is there, before and after.
class LinuxNumaSnapshot : public LinuxDeviceTest {
 protected:
  static constexpr std::uint64_t kRam0 = 96 * kMiB;

  static void ExpectPlaced(pid_t pid) {
    const auto blocks = GuestMemfdNodesOf(pid);
    ASSERT_EQ(blocks.size(), 1U);
    EXPECT_EQ(blocks[0].size(), kRam0 / kPageSize);
    EXPECT_EQ(std::ranges::count(blocks[0], 1), std::ssize(blocks[0])) << "all of ram0 on node 1";
    EXPECT_EQ(PoliciesOf(pid).count("bind:0"), 1U) << "ram1";
  }
};

TEST_F(LinuxNumaSnapshot, AGuestOfTwoNodesGoesOnWithItsMemoryWhereItWas) {
  const std::string script =
      "cd /sys/devices/system/node; n=0\n"
      "while [ $n -lt 100000 ]; do\n"
      "  dd if=/dev/urandom of=/tmp/f bs=1M count=20 2>/dev/null; md5sum /tmp/f >/tmp/sum\n"
      "  md5sum -c /tmp/sum >/dev/null 2>&1 || echo hf: bad=file\n"
      "  echo hf: nodes=$(cat node0/cpulist node1/cpulist;"
      " cat node*/meminfo | busybox awk '/MemTotal/ { print $4 }')\n"
      "  n=$((n + 1)); echo \"hf: round=$n.\"\n"
      "done\n";
  const Arguments line = Guest(script, {.cpus = 2, .ram = 192 * kMiB}) +
                         Nodes("guest-memfd,size=96M,prealloc=on,policy=bind,host-nodes=1",
                               "memfd,guest-memfd=off,size=96M,policy=bind,host-nodes=0") +
                         Arguments{"-qmp", fmt::format("unix:{},server=on,wait=off", Path("qmp"))};
  auto monitor = std::make_unique<MonitorProcess>(line);
  ASSERT_TEXT(*monitor, "hf: round=1.");
  const std::string nodes = ValueOf(*monitor, "nodes");
  ASSERT_THAT(nodes, ::testing::StartsWith("0 1 "));
  ASSERT_NO_FATAL_FAILURE(ExpectPlaced(monitor->pid()));
  MonitorProcess ctl({"snapshot", "create", Path("qmp"), Path("a")}, {.program = CtlPath()});
  const auto exit = ctl.WaitForExit(300);
  ASSERT_TRUE(exit && exit->status == 0) << ctl.Describe();
  monitor->Signal(SIGKILL);
  ASSERT_TRUE(monitor->WaitForExit());
  monitor = std::make_unique<MonitorProcess>(
      line + Arguments{"-incoming", "file:" + Path("a") + ",prefault=on"});
  for (int round = 0; round < 2; ++round) ASSERT_TEXT(*monitor, "hf: round=");
  EXPECT_THAT(monitor->output(), Not(HasSubstr("hf: bad="))) << monitor->Describe();
  EXPECT_THAT(monitor->output(), HasSubstr("hf: nodes=" + nodes));
  ASSERT_NO_FATAL_FAILURE(ExpectPlaced(monitor->pid()));
}

}  // namespace
}  // namespace holdfast::test
