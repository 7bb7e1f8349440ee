// SPDX-License-Identifier: Apache-2.0
// The small virtio devices in a Linux guest: entropy, balloon, console.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>

#include <cstdlib>

#include "system/device_guest.h"
#include "system/process_memory.h"

namespace holdfast::test {
namespace {

using ::testing::HasSubstr;

class LinuxDevices : public LinuxDeviceTest {};

TEST_F(LinuxDevices, RngGivesEntropy) {
  constexpr std::string_view kScript =
      "echo hf: rng=$(cat /sys/class/misc/hw_random/rng_current)\n"
      "dd if=/dev/hwrng of=/tmp/a bs=64 count=4; dd if=/dev/hwrng of=/tmp/b bs=64 count=4\n"
      "echo hf: bytes=$(cat /tmp/a /tmp/b | wc -c)\n"
      "cmp -s /tmp/a /tmp/b || echo hf: differ=yes\n";
  MonitorProcess monitor(Guest(kScript) + Arguments{"-device", "virtio-rng-pci"});
  EXPECT_ENDS(monitor, 0);
  EXPECT_EQ(ValueOf(monitor, "rng"), "virtio_rng.0") << monitor.Describe();
  EXPECT_EQ(ValueOf(monitor, "bytes"), "512");
  EXPECT_EQ(ValueOf(monitor, "differ"), "yes");
}

std::uint64_t Present(const MonitorProcess& monitor) {
  std::uint64_t bytes = 0;
  for (const ProcessGuestMemfd& memfd : GuestMemfdsOf(monitor.pid())) bytes += memfd.present;
  return bytes;
}

// Waits until no more than `bytes` of guest RAM are there.
bool ShrinksTo(MonitorProcess& monitor, std::uint64_t bytes) {
  for (int tries = 0; tries < 1200 && monitor.running(); ++tries) {
    if (Present(monitor) <= bytes) return true;
    monitor.ReadFor(0.1);
  }
  return false;
}

// Waits until the guest has as many MiB as it was told to; at the prompt.
bool BalloonComesTo(MonitorProcess& monitor, int mib) {
  for (int tries = 0; tries < 1200 && monitor.running(); ++tries) {
    if (RunCommand(monitor, "info balloon").find(fmt::format("actual={}\r", mib)) !=
        std::string::npos)
      return true;
    monitor.ReadFor(0.1);
  }
  return false;
}

TEST_F(LinuxDevices, BalloonGivesMemoryBackToTheHost) {
  // Uses 96 MiB, frees them, and waits.
  constexpr std::string_view kScript =
      "head -c 100663296 /dev/zero >/tmp/fill; rm /tmp/fill; echo hf: filled; read line\n"
      "head -c 50000000 /dev/zero >/tmp/fill; echo hf: again=$(wc -c </tmp/fill)\n";
  MonitorProcess monitor(
      Guest(kScript, {.ram = 256 * kMiB}) + Arguments{"-device", "virtio-balloon-pci"},
      {.terminal = true});
  ASSERT_TEXT(monitor, "hf: filled");
  const std::uint64_t before = Present(monitor);
  EXPECT_GE(before, 128 * kMiB);
  monitor.Send(CtrlA('c'));
  ASSERT_TEXT(monitor, kPrompt);
  RunCommand(monitor, "balloon 128");
  EXPECT_TRUE(ShrinksTo(monitor, 129 * kMiB))
      << Present(monitor) / kMiB << " MiB of " << before / kMiB << "\n"
      << monitor.Describe();
  EXPECT_TRUE(BalloonComesTo(monitor, 128)) << monitor.Describe();
  // What was given away comes back when it is needed again.
  RunCommand(monitor, "balloon 256");
  EXPECT_TRUE(BalloonComesTo(monitor, 256)) << monitor.Describe();
  monitor.Send(CtrlA('c') + "\n");
  EXPECT_TEXT(monitor, "hf: again=50000000");
  EXPECT_ENDS(monitor, 0);
}

TEST_F(LinuxDevices, FreePageReportingGivesMemoryBackByItself) {
  constexpr std::string_view kScript =
      "head -c 100663296 /dev/zero >/tmp/fill; echo hf: filled; read line\n"
      "rm /tmp/fill; echo hf: freed; read line\n";
  MonitorProcess monitor(Guest(kScript, {.ram = 256 * kMiB}) +
                         Arguments{"-device", "virtio-balloon-pci,free-page-reporting=on"});
  ASSERT_TEXT(monitor, "hf: filled");
  const std::uint64_t before = Present(monitor);
  monitor.Send("\n");
  ASSERT_TEXT(monitor, "hf: freed");
  EXPECT_TRUE(ShrinksTo(monitor, before - 64 * kMiB))
      << Present(monitor) / kMiB << " MiB of " << before / kMiB << "\n"
      << monitor.Describe();
  monitor.Send("\n");
  EXPECT_ENDS(monitor, 0);
}

TEST_F(LinuxDevices, ConsoleAndPortCarryTextToTheirChardevs) {
  constexpr std::string_view kScript =
      "echo to the console >/dev/hvc0\n"
      "p=$(grep -l org.example.port /sys/class/virtio-ports/*/name)\n"
      "echo to the port >/dev/$(basename $(dirname $p)) && echo hf: ports=yes\n"
      "sleep 1\n";
  MonitorProcess monitor(Guest(kScript) +
                         Arguments{"-device", "virtio-serial-pci", "-chardev",
                                   fmt::format("file,id=c0,path={}", Path("console")), "-device",
                                   "virtconsole,chardev=c0", "-chardev",
                                   fmt::format("file,id=c1,path={}", Path("port")), "-device",
                                   "virtserialport,chardev=c1,name=org.example.port"});
  EXPECT_ENDS(monitor, 0);
  EXPECT_EQ(ValueOf(monitor, "ports"), "yes") << monitor.Describe();
  EXPECT_THAT(ReadAll(Path("console")), HasSubstr("to the console"));
  EXPECT_THAT(ReadAll(Path("port")), HasSubstr("to the port"));
}

}  // namespace
}  // namespace holdfast::test
