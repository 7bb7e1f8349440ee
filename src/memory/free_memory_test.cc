// SPDX-License-Identifier: Apache-2.0
#include "memory/free_memory.h"

#include <gtest/gtest.h>
#include <holdfast/units.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace holdfast {
namespace {

class FreeMemoryTest : public ::testing::Test {
 protected:
  FreeMemoryTest() {
    std::string name = (std::filesystem::temp_directory_path() / "holdfast-free-XXXXXX").string();
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    root_ = name;
    Write("proc/meminfo", "MemTotal: 9000 kB\nMemAvailable:    8000 kB\nSwapFree: 500 kB\n");
    Write("proc/sys/vm/min_free_kbytes", "100\n");
    Write("proc/zoneinfo",
          "Node 0, zone Normal\n  pagesets\n    cpu: 0\n      count:    10\n"
          "    cpu: 1\n              count: 5\nNode 1, zone Normal\n  pagesets\n");
    Write("sys/devices/system/node/node0/meminfo",
          "Node 0 MemFree:  4000 kB\nNode 0 Active(file): 50 kB\nNode 0 FilePages: 999 kB\n");
    Write("sys/devices/system/node/node1/meminfo", "Node 1 MemFree:  1000 kB\n");
  }
  ~FreeMemoryTest() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name) << text;
  }
  FreeMemory Find(const NumaPolicy& policy, bool swappable = false) const {
    return FindFreeMemory(policy, swappable, root_.string());
  }

 private:
  std::filesystem::path root_;
};

TEST_F(FreeMemoryTest, TheHostBoundsWhatMayLieAnywhere) {
  for (const NumaMode mode : {NumaMode::kDefault, NumaMode::kPreferred, NumaMode::kInterleave}) {
    const FreeMemory found = Find({mode, {1}});
    EXPECT_EQ(found.bytes, 8000 * kKiB);
    EXPECT_EQ(found.where, "the host");
  }
  EXPECT_EQ(Find({}, /*swappable=*/true).bytes, 8500 * kKiB);
}

TEST_F(FreeMemoryTest, TheNodesBoundWhatIsBoundToThem) {
  EXPECT_EQ(Find({NumaMode::kBind, {1}}).bytes, 900 * kKiB);
  EXPECT_EQ(Find({NumaMode::kBind, {1}}).where, "host node 1");
  EXPECT_EQ(Find({NumaMode::kBind, {0, 1}}).bytes, (3950 + 15 * 4 + 900) * kKiB);
  EXPECT_EQ(Find({NumaMode::kBind, {0, 1}}).where, "host nodes 0, 1");
  EXPECT_EQ(Find({NumaMode::kBind, {7}}).bytes, 0U) << "a node that is not there has nothing";
}

TEST_F(FreeMemoryTest, ControlGroupsBoundItFromAnyHeight) {
  Write("proc/self/cgroup", "0::/vms/guest\n");
  Write("sys/fs/cgroup/vms/guest/memory.max", "max\n");
  Write("sys/fs/cgroup/vms/guest/memory.current", "4096\n");
  EXPECT_EQ(Find({}).where, "the host");
  Write("sys/fs/cgroup/vms/memory.max", "1048576\n");
  Write("sys/fs/cgroup/vms/memory.current", "524288\n");
  Write("sys/fs/cgroup/vms/memory.stat", "anon 1\nactive_file 4096\ninactive_file 8192\n");
  EXPECT_EQ(Find({}).bytes, 524288U + 12288U);
  EXPECT_EQ(Find({}).where, "the control group /vms");
}

}  // namespace
}  // namespace holdfast
