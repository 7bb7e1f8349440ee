// SPDX-License-Identifier: Apache-2.0
// Guests that keep memory from the host, on a KVM that runs kernel-mode code: their hypercalls, and
// what host, monitor and control protocol make of private memory.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "system/linux_guest.h"

namespace holdfast::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

Arguments Protected(std::string_view properties) {
  return {"-object", fmt::format("sw-protected-guest,id=cgs0,{}", properties), "-machine",
          "confidential-guest-support=cgs0"};
}

class LinuxConversion : public LinuxTest {
 protected:
  // guests/mapgpa.cc with 32 MiB; at its end 16 pages from 8 MiB on are private.
  static Arguments MapGpa() {
    const auto kernel = std::filesystem::path(HelloPath()).parent_path() / "mapgpa.elf";
    return {"-nographic", "-kernel", kernel.string(), "-append", "32", "-m", "32M"};
  }
};

TEST_F(LinuxConversion, AGuestConvertsItsMemoryByHypercall) {
  for (const char* initial : {"initial=shared", "initial=private"}) {
    SCOPED_TRACE(initial);
    MonitorProcess monitor(MapGpa() + Protected(initial) + kDebugExit);
    EXPECT_TEXT(monitor, "hypercall offered");
    EXPECT_TEXT(monitor, "conversions: right");
    EXPECT_ENDS(monitor, 1);
    EXPECT_EQ(monitor.errors(), "");
  }
}

TEST_F(LinuxConversion, WithoutAConfidentialGuestNobodyConverts) {
  MonitorProcess monitor(MapGpa() + kDebugExit);
  EXPECT_TEXT(monitor, "hypercall not offered");
  EXPECT_TEXT(monitor, "conversions: wrong");
  EXPECT_ENDS(monitor, 3);
}

// Without the debug exit's device the guest spins at its end and can be looked at.
TEST_F(LinuxConversion, TheMonitorDoesNotShowPrivateMemory) {
  MonitorProcess monitor(MapGpa() + Protected("initial=shared"));
  ASSERT_TEXT(monitor, "conversions: right");
  ASSERT_TRUE(monitor.Send(CtrlA('c')));
  ASSERT_TEXT(monitor, kPrompt);
  EXPECT_THAT(RunCommand(monitor, "xp /2wx 0x800000"), HasSubstr("private"));
  EXPECT_THAT(RunCommand(monitor, "xp /2wx 0x7ff000"), Not(HasSubstr("private")));
  EXPECT_THAT(RunCommand(monitor, "system_reset"), Not(HasSubstr("rror")));
  EXPECT_TEXT(monitor, "conversions: right") << "after a reset all is shared again";
  ASSERT_TRUE(monitor.Send("quit\n"));
  EXPECT_ENDS(monitor, 0);
}

TEST_F(LinuxConversion, LinuxBootsWithMemoryThatCanBecomePrivate) {
  MonitorProcess monitor(Line({.cpus = 2}, "hf.do=none hf.end=reboot") +
                         Protected("initial=shared") + Arguments{"-no-reboot"});
  EXPECT_TEXT(monitor, kInitLine);
  EXPECT_ENDS(monitor, 0);
  EXPECT_EQ(monitor.errors(), "");
}

}  // namespace
}  // namespace holdfast::test
