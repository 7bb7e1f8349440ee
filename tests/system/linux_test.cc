// SPDX-License-Identifier: Apache-2.0
// A stock Linux kernel under the whole monitor. Each boot costs seconds in the lab: a test asks
// one boot as much as it can.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>
#include <signal.h>

#include <cstdlib>

#include "support/kvm_fixture.h"
#include "system/linux_guest.h"
#include "system/process_memory.h"

namespace holdfast::test {
namespace {

using ::testing::HasSubstr;

// ---- The matrix -------------------------------------------------------------------------------

// Names the test too: "bzimage_unbound_1cpu_256M".
std::string ChoiceName(const ::testing::TestParamInfo<LinuxChoice>& info) {
  const LinuxChoice& c = info.param;
  return fmt::format("{}_{}_{}cpu_{}M", c.pvh ? "pvh" : "bzimage", c.bound ? "bound" : "unbound",
                     c.cpus, c.ram / kMiB);
}

std::vector<LinuxChoice> Choices() {
  constexpr std::uint64_t kSmall = 256 * kMiB;
  constexpr std::uint64_t kMiddle = 3584 * kMiB;
  constexpr std::uint64_t kLarge = 6 * kGiB;
  if (LongForm()) {
    std::vector<LinuxChoice> all;
    for (const bool pvh : {false, true})
      for (const bool bound : {false, true})
        for (const unsigned cpus : {1U, 4U})
          for (const std::uint64_t ram : {kSmall, kMiddle, kLarge})
            all.push_back({pvh, bound, cpus, ram});
    return all;
  }
  // Every pair of values of two columns stands in some row.
  return {
      {false, false, 1, kSmall}, {true, true, 4, kSmall},   {false, true, 4, kMiddle},
      {true, false, 1, kMiddle}, {false, false, 4, kLarge}, {true, true, 1, kLarge},
  };
}

class LinuxBoot : public LinuxTest, public ::testing::WithParamInterface<LinuxChoice> {};
INSTANTIATE_TEST_SUITE_P(, LinuxBoot, ::testing::ValuesIn(Choices()), ChoiceName);

TEST_P(LinuxBoot, ComesUpWithItsMemoryAndCpusAndPowersOff) {
  // What the firmware (we) gave the kernel, before it took its own part of it.
  constexpr std::string_view kScript =
      "busybox dmesg | busybox sed -n 's,.*Memory: [0-9]*K/\\([0-9]*\\)K.*,hf: given_kib=\\1,p'\n";
  const LinuxChoice& choice = GetParam();
  MonitorProcess monitor(Line(choice, ScriptWord(kScript)));
  ASSERT_TEXT(monitor, kInitLine);
  auto report = ReadReport(monitor);
  ASSERT_TEXT(monitor, "hf: given_kib=");
  ASSERT_TEXT(monitor, "\n");
  const std::string& output = monitor.output();
  const std::uint64_t given =
      std::strtoull(output.c_str() + output.rfind("given_kib=") + 10, nullptr, 10) * kKiB;
  EXPECT_EQ(report["cpu_count"], std::to_string(choice.cpus));
  const std::uint64_t total = std::strtoull(report["mem_total_kib"].c_str(), nullptr, 10) * kKiB;
  const auto percent = [&](std::uint64_t bytes) {
    return static_cast<double>(bytes) * 100 / static_cast<double>(choice.ram);
  };
  EXPECT_NEAR(percent(given), 100, 1);
  // MemTotal is less by the kernel's own code and page structures. In 256 MiB those alone are more
  // than 5 %, whoever runs the guest: 46 MiB in 6.18, 50 MiB in 7.3.
  constexpr std::uint64_t kKernelsOwn = 56 * kMiB;
  const double allowed = std::max(5.0, percent(kKernelsOwn));
  EXPECT_NEAR(percent(total), 100, allowed) << monitor.Describe();
  EXPECT_ENDS(monitor, 0);
  EXPECT_EQ(monitor.errors(), "");
}

// ---- Lifecycle -------------------------------------------------------------------------------

class LinuxLifecycle : public LinuxTest {};

TEST_F(LinuxLifecycle, RebootRestartsTheGuest) {
  MonitorProcess monitor(Line({.cpus = 2}, "hf.do=none hf.end=reboot"));
  ASSERT_TEXT(monitor, kInitLine);
  ASSERT_TEXT(monitor, kInitLine);
  EXPECT_TRUE(monitor.running());
}

TEST_F(LinuxLifecycle, NoRebootEndsInstead) {
  MonitorProcess monitor(Line({}, "hf.do=none hf.end=reboot") + Arguments{"-no-reboot"});
  EXPECT_TEXT(monitor, kInitLine);
  EXPECT_ENDS(monitor, 0);
}

TEST_F(LinuxLifecycle, PanicIsReportedAndNoShutdownStays) {
  // Without panic=-1 of the usual line the guest stays in its panic, as most are set up to.
  MonitorProcess monitor(
      Line({}, "hf.do=none hf.end=panic panic=0") + Arguments{"-device", "pvpanic", "-no-shutdown"},
      {.terminal = true});
  ASSERT_TEXT(monitor, kInitLine);
  EXPECT_TRUE(monitor.WaitForError("panic")) << monitor.Describe();
  EXPECT_TRUE(monitor.running());
  monitor.Send(CtrlA('c'));
  ASSERT_TEXT(monitor, kPrompt);
  EXPECT_THAT(RunCommand(monitor, "info status"), HasSubstr("VM status: paused (guest-panicked)"));
}

TEST_F(LinuxLifecycle, PanicWithoutNoShutdownEnds) {
  MonitorProcess monitor(Line({}, "hf.do=none hf.end=panic panic=0") +
                         Arguments{"-device", "pvpanic"});
  EXPECT_TEXT(monitor, kInitLine);
  EXPECT_ENDS(monitor, 0);
  EXPECT_THAT(monitor.errors(), HasSubstr("panic"));
}

TEST_F(LinuxLifecycle, NoShutdownStaysAfterPowerOff) {
  MonitorProcess monitor(Line({}, "hf.do=none") + Arguments{"-no-shutdown"}, {.terminal = true});
  ASSERT_TEXT(monitor, kInitLine);
  monitor.Send(CtrlA('c'));
  ASSERT_TEXT(monitor, kPrompt);
  std::string status;
  for (int i = 0; i < 200 && status.find("(shutdown)") == std::string::npos; ++i) {
    monitor.ReadFor(0.1);
    status = RunCommand(monitor, "info status");
  }
  EXPECT_THAT(status, HasSubstr("VM status: paused (shutdown)"));
  EXPECT_TRUE(monitor.running());
  monitor.Send("quit\n");
  EXPECT_ENDS(monitor, 0);
  EXPECT_TRUE(monitor.TerminalIsAsBefore());
}

TEST_F(LinuxLifecycle, ObeysTheMonitorPrompt) {
  MonitorProcess monitor(Line({}, "hf.end=wait") + Arguments{"-S"}, {.terminal = true});
  monitor.Send(CtrlA('c'));
  ASSERT_TEXT(monitor, kPrompt);
  EXPECT_THAT(RunCommand(monitor, "info status"), HasSubstr("VM status: paused (prelaunch)"));
  EXPECT_EQ(monitor.output().find(kInitLine), std::string::npos) << "-S waits";
  monitor.Send("cont\n" + CtrlA('c'));
  ASSERT_TEXT(monitor, "hf: waiting");
  monitor.Send(CtrlA('h'));
  EXPECT_TEXT(monitor, "C-a x");
  monitor.Send(CtrlA('c'));
  EXPECT_TEXT(monitor, kPrompt);
  EXPECT_THAT(RunCommand(monitor, "info status"), HasSubstr("VM status: running"));
  RunCommand(monitor, "stop");
  EXPECT_THAT(RunCommand(monitor, "info status"), HasSubstr("VM status: paused"));
  RunCommand(monitor, "cont");
  monitor.Send("system_reset\n");
  EXPECT_TRUE(SaysTwice(monitor, kInitLine)) << monitor.Describe();
  monitor.Send(CtrlA('x'));
  EXPECT_ENDS(monitor, 0);
  EXPECT_TRUE(monitor.TerminalIsAsBefore());
}

TEST_F(LinuxLifecycle, BootsInARowWithoutOneFailure) {
  const int boots = LongForm() ? 50 : 3;
  for (int boot = 0; boot < boots; ++boot) {
    MonitorProcess monitor(Line({.cpus = 4}, "hf.do=none"));
    ASSERT_TRUE(monitor.WaitFor(kInitLine)) << "boot " << boot << "\n" << monitor.Describe();
    ASSERT_PRED_FORMAT2(EndsWith, monitor, 0) << "boot " << boot;
  }
}

// ---- Memory ------------------------------------------------------------------------------------

class LinuxMemory : public LinuxTest, public ::testing::WithParamInterface<bool> {};
INSTANTIATE_TEST_SUITE_P(, LinuxMemory, ::testing::Bool(), BoundName);

std::uint64_t PresentBytes(const MonitorProcess& monitor) {
  const auto memfds = GuestMemfdsOf(monitor.pid());
  return memfds.size() == 1 ? memfds[0].present : 0;
}

TEST_P(LinuxMemory, IsGuestMemfdAndNothingElse) {
  constexpr std::uint64_t kRam = 512 * kMiB;
  constexpr std::uint64_t kFill = 96 * kMiB;
  // Holds still twice: before and after it has used up a part of its memory.
  const std::string script = fmt::format(
      "while read key kib unit; do\n"
      "  [ $key != MemFree: ] || echo hf: free_kib=$kib\n"
      "done </proc/meminfo\n"
      "echo 'hf: before'; read line\n"
      "head -c {} /dev/zero >/tmp/fill; echo 'hf: after'\n",
      kFill);
  MonitorProcess monitor(
      Line({.bound = GetParam(), .ram = kRam}, "hf.end=wait " + ScriptWord(script)));
  auto report = ReadReport(monitor);
  const std::uint64_t total = std::strtoull(report["mem_total_kib"].c_str(), nullptr, 10) * kKiB;
  constexpr std::string_view kFree = "hf: free_kib=";
  ASSERT_TEXT(monitor, "hf: before");
  const std::string& output = monitor.output();
  const std::size_t at = output.rfind(kFree);
  ASSERT_NE(at, std::string::npos);
  const std::uint64_t free = std::strtoull(output.c_str() + at + kFree.size(), nullptr, 10) * kKiB;
  ExpectAllRamIsGuestMemfd(monitor.pid(), kRam);
  const std::uint64_t before = PresentBytes(monitor);
  ASSERT_GT(total, free);
  EXPECT_GE(before, total - free) << "what the guest uses must be there";
  EXPECT_LE(before, kRam);

  monitor.Send("\n");
  ASSERT_TEXT(monitor, "hf: after");
  ExpectAllRamIsGuestMemfd(monitor.pid(), kRam);
  const std::uint64_t after = PresentBytes(monitor);
  // The pages of the file are new ones except for those the guest had used and freed before.
  const std::uint64_t used_before = before > total - free ? before - (total - free) : 0;
  EXPECT_GE(after + used_before, before + kFill);
  EXPECT_LE(after, kRam);

  // The same boot answers for the power button.
  ASSERT_TEXT(monitor, "hf: waiting");
  ASSERT_TRUE(monitor.Signal(SIGTERM));
  EXPECT_TEXT(monitor, "hf: power button");
  EXPECT_ENDS(monitor, 0);
}

}  // namespace
}  // namespace holdfast::test
