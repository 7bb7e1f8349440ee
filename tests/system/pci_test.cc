// SPDX-License-Identifier: Apache-2.0
// What Linux makes of the PCI buses, and devices that come and go while it runs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "system/device_guest.h"

namespace holdfast::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class LinuxPci : public LinuxDeviceTest {};

// "hf: ADDRESS=VENDOR:DEVICE", then whether each BAR has a place and who complained.
constexpr std::string_view kLook =
    "cd /sys/bus/pci/devices\n"
    "for d in *; do echo hf: $d=$(cat $d/vendor):$(cat $d/device); done\n"
    "echo hf: driver=$(basename $(readlink 0000:00:05.0/driver))\n"
    "echo hf: msix=$(ls 0000:00:05.0/msi_irqs | wc -l)\n"
    "echo hf: config=$(wc -c <0000:00:05.0/config)\n"
    "echo hf: complaints=$(dmesg | grep -iE 'pci|acpi' | "
    "grep -ciE 'fail|conflict|no space|bogus|error|fatal|firmware bug|unassigned')\n"
    "dmesg | grep -iE 'pci|acpi' | grep -iE 'fail|conflict|no space|bogus|error|fatal|unassigned'\n"
    "echo hf: done\n";

TEST_F(LinuxPci, SeesTheFunctionsWhereTheyWerePut) {
  for (const LinuxChoice& choice :
       {LinuxChoice{}, LinuxChoice{.pvh = true, .cpus = 2, .ram = 3ULL << 30}}) {
    SCOPED_TRACE(choice.cpus);
    MonitorProcess monitor(
        Guest(kLook, choice) +
        Arguments{"-device", "pci-testdev,multifunction=on,addr=03.0", "-device",
                  "pci-testdev,addr=3.1", "-device", "virtio-rng-pci,addr=0x5", "-device",
                  R"({"driver": "pcie-root-port", "id": "rp", "chassis": 1, "slot": 4})", "-device",
                  "pci-testdev,bus=rp,id=behind"});
    auto facts = ReadReport(monitor);
    EXPECT_EQ(facts["0000:00:00.0"], "0x8086:0x29c0") << monitor.Describe();
    EXPECT_EQ(facts["0000:00:03.0"], "0x1b36:0x0005");
    EXPECT_EQ(facts["0000:00:03.1"], "0x1b36:0x0005");
    EXPECT_EQ(facts["0000:00:05.0"].substr(0, 6), "0x1af4");
    EXPECT_EQ(facts["0000:00:01.0"], "0x1b36:0x000c");
    EXPECT_EQ(facts["0000:01:00.0"], "0x1b36:0x0005");
    EXPECT_EQ(facts["driver"], "virtio-pci");
    EXPECT_EQ(facts["msix"], "2");
    EXPECT_EQ(facts["config"], "4096") << "ECAM is used";
    EXPECT_EQ(facts["complaints"], "0") << monitor.Describe();
    EXPECT_ENDS(monitor, 0);
  }
}

TEST_F(LinuxPci, SeesDevicesComeAndGo) {
  constexpr std::string_view kScript =
      "d=/sys/bus/pci/devices/0000:01:00.0\n"
      "echo hf: ready\n"
      "until [ -e $d/driver ]; do usleep 100000; done; echo hf: came=$(cat $d/vendor)\n"
      "while [ -e $d ]; do usleep 100000; done; echo hf: went\n"
      "read line\n";
  MonitorProcess monitor(Guest(kScript) + Arguments{"-device", "pcie-root-port,id=rp,chassis=1"},
                         {.terminal = true});
  ASSERT_TEXT(monitor, "hf: ready");
  monitor.Send(CtrlA('c'));
  ASSERT_TEXT(monitor, kPrompt);
  EXPECT_THAT(RunCommand(monitor, "device_add virtio-rng-pci,id=hot"),
              HasSubstr("Bus 'pcie.0' does not support hotplugging"));
  EXPECT_THAT(RunCommand(monitor, "device_add virtio-rng-pci,id=hot,bus=rp"),
              Not(HasSubstr("rror")));
  EXPECT_THAT(RunCommand(monitor, "device_add virtio-rng-pci,id=hot,bus=rp"),
              HasSubstr("Duplicate device ID 'hot'"));
  EXPECT_TEXT(monitor, "hf: came=0x1af4");
  EXPECT_THAT(RunCommand(monitor, "info pci"), HasSubstr("id \"hot\""));
  EXPECT_THAT(RunCommand(monitor, "device_del hot"), Not(HasSubstr("rror")));
  EXPECT_TEXT(monitor, "hf: went");
  std::string pci = "id \"hot\"";
  for (int tries = 0; tries < 600 && pci.find("id \"hot\"") != std::string::npos; ++tries) {
    monitor.ReadFor(0.1);
    pci = RunCommand(monitor, "info pci");
  }
  EXPECT_THAT(pci, Not(HasSubstr("id \"hot\"")));
  EXPECT_THAT(RunCommand(monitor, "device_del hot"), HasSubstr("Device 'hot' not found"));
  monitor.Send(CtrlA('c') + "\n");
  EXPECT_ENDS(monitor, 0);
}

}  // namespace
}  // namespace holdfast::test
