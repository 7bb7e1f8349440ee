// SPDX-License-Identifier: Apache-2.0
// A guest that writes garbage into every register, queue and ring of every virtio device
// (guests/garbage.cc) harms nothing but itself: the monitor lives, and a device that is driven
// properly works before and after.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>

#include <filesystem>
#include <string>

#include "system/fixture.h"

namespace holdfast::test {
namespace {

// The device that is driven properly, and those that are not.
Arguments Devices(const std::string& disk) {
  return {"-device",  "virtio-rng-pci",  // the sane one
          "-device",  "virtio-rng-pci",
          "-device",  "virtio-balloon-pci",
          "-drive",   fmt::format("file={},if=none,id=d0,format=raw", disk),
          "-device",  "virtio-blk-pci,drive=d0,num-queues=2",
          "-netdev",  "user,id=n0",
          "-device",  "virtio-net-pci,netdev=n0",
          "-device",  "virtio-serial-pci",
          "-chardev", "null,id=c0",
          "-device",  "virtconsole,chardev=c0"};
}

class Garbage : public NativeTest, public ::testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(Seed, Garbage, ::testing::Range(1, 4),
                         ::testing::PrintToStringParamName());

TEST_P(Garbage, InEveryDeviceLeavesTheMonitorAndAnotherDeviceAlive) {
  const std::string kernel =
      (std::filesystem::path(HelloPath()).parent_path() / "garbage.elf").string();
  MonitorProcess monitor(Arguments{"-m", "32M", "-kernel", kernel, "-append",
                                   fmt::format("{} 20", GetParam()), "-nographic", "-device",
                                   "isa-debug-exit"} +
                         Devices(MakeFile("disk", std::string(kMiB, '\0'))));
  ASSERT_TEXT(monitor, "entropy before: yes");
  EXPECT_TEXT(monitor, "entropy after: yes");
  EXPECT_ENDS(monitor, 1);
  EXPECT_EQ(monitor.output().find("needs_reset=0 "), std::string::npos)
      << "no ring was found broken\n"
      << monitor.Describe();
}

}  // namespace
}  // namespace holdfast::test
