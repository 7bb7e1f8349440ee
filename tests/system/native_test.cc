// SPDX-License-Identifier: Apache-2.0
// The whole monitor around a guest of a few hundred bytes: start, console, monitor prompt,
// lifecycle, end. Runs wherever guest_memfd does.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>
#include <signal.h>

#include "system/fixture.h"
#include "system/process_memory.h"

namespace holdfast::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// "Nothing happens": long enough for what must not happen to happen, on this machine.
constexpr double kShortWhile = 0.5;

class NativeGuest : public NativeTest {};

TEST_F(NativeGuest, PrintsAndEndsTheMonitorWithItsStatus) {
  const struct {
    const char* commands;
    int status;
  } cases[] = {{"0", 1}, {"3", 7}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.commands);
    MonitorProcess monitor(Hello(c.commands) + kDebugExit);
    EXPECT_TEXT(monitor, kHelloLine);
    EXPECT_ENDS(monitor, c.status);
    EXPECT_EQ(monitor.errors(), "");
  }
}

TEST_F(NativeGuest, RunsBoundAndUnboundInABackendOfItsOwn) {
  for (const char* bind : {"on", "off", "auto"}) {
    SCOPED_TRACE(bind);
    MonitorProcess monitor(
        Hello("0") + kDebugExit +
        Arguments{"-object",
                  std::string("memory-backend-guest-memfd,id=ram0,size=32M,bind=") + bind,
                  "-machine", "q35,memory-backend=ram0"});
    EXPECT_TEXT(monitor, kHelloLine);
    EXPECT_ENDS(monitor, 1);
  }
}

TEST_F(NativeGuest, HasAllItsRamInGuestMemfd) {
  for (const char* bind : {"on", "off"}) {
    SCOPED_TRACE(bind);
    MonitorProcess monitor(
        {"-kernel", HelloPath(), "-nographic", "-m", "5G", "-smp", "4", "-machine",
         "memory-backend=ram0", "-object",
         std::string("memory-backend-guest-memfd,id=ram0,size=5G,bind=") + bind});
    ASSERT_TEXT(monitor, kHelloLine);
    ExpectAllRamIsGuestMemfd(monitor.pid(), 5 * kGiB);
  }
}

TEST_F(NativeGuest, ImplicitBackendIsGuestMemfdToo) {
  MonitorProcess monitor({"-kernel", HelloPath(), "-nographic", "-m", "300M"});
  ASSERT_TEXT(monitor, kHelloLine);
  ExpectAllRamIsGuestMemfd(monitor.pid(), 300 * kMiB);
}

class NativeLifecycle : public NativeTest {
 protected:
  // What `info status` says; switches to the monitor prompt first.
  static std::string Status(MonitorProcess& monitor) {
    monitor.Send(CtrlA('c'));
    EXPECT_TEXT(monitor, kPrompt);
    return RunCommand(monitor, "info status");
  }
};

TEST_F(NativeLifecycle, ResetStartsTheGuestAgain) {
  MonitorProcess monitor(Hello("r"));
  for (int boot = 0; boot < 3; ++boot) ASSERT_TEXT(monitor, kHelloLine);
  EXPECT_TRUE(monitor.running());
}

TEST_F(NativeLifecycle, NoRebootEndsInstead) {
  MonitorProcess monitor(Hello("r") + Arguments{"-no-reboot"});
  EXPECT_ENDS(monitor, 0);
  EXPECT_TRUE(monitor.WaitFor(kHelloLine));
  EXPECT_FALSE(monitor.WaitFor(kHelloLine));
}

TEST_F(NativeLifecycle, PowerOffEnds) {
  MonitorProcess monitor(Hello("p"));
  EXPECT_TEXT(monitor, kHelloLine);
  EXPECT_ENDS(monitor, 0);
}

TEST_F(NativeLifecycle, NoShutdownStaysAfterPowerOff) {
  MonitorProcess monitor(Hello("p") + Arguments{"-no-shutdown"}, {.terminal = true});
  ASSERT_TEXT(monitor, kHelloLine);
  monitor.ReadFor(kShortWhile);
  EXPECT_TRUE(monitor.running()) << monitor.Describe();
  EXPECT_THAT(Status(monitor), HasSubstr("VM status: paused (shutdown)"));
  monitor.Send("quit\n");
  EXPECT_ENDS(monitor, 0);
}

TEST_F(NativeLifecycle, PanicEndsAndSaysSo) {
  MonitorProcess monitor(Hello("c") + Arguments{"-device", "pvpanic"});
  EXPECT_TEXT(monitor, kHelloLine);
  EXPECT_ENDS(monitor, 0);
  EXPECT_THAT(monitor.errors(), HasSubstr("panic"));
}

TEST_F(NativeLifecycle, NoShutdownStaysAfterPanic) {
  MonitorProcess monitor(Hello("c") + Arguments{"-device", "pvpanic", "-no-shutdown"},
                         {.terminal = true});
  EXPECT_TRUE(monitor.WaitForError("panic")) << monitor.Describe();
  EXPECT_THAT(Status(monitor), HasSubstr("VM status: paused (guest-panicked)"));
}

TEST_F(NativeLifecycle, StartsPausedUntilContinued) {
  MonitorProcess monitor(Hello("") + Arguments{"-S"}, {.terminal = true});
  EXPECT_THAT(Status(monitor), HasSubstr("VM status: paused (prelaunch)"));
  monitor.ReadFor(kShortWhile);
  EXPECT_THAT(monitor.output(), Not(HasSubstr(kHelloLine)));
  monitor.Send("cont\n");
  EXPECT_TEXT(monitor, kHelloLine);
}

TEST_F(NativeLifecycle, StopContResetAndQuit) {
  MonitorProcess monitor(Hello("e"), {.terminal = true});
  ASSERT_TEXT(monitor, kHelloLine);
  EXPECT_THAT(Status(monitor), HasSubstr("VM status: running"));
  RunCommand(monitor, "stop");
  EXPECT_THAT(RunCommand(monitor, "info status"), HasSubstr("VM status: paused"));
  RunCommand(monitor, "cont");
  EXPECT_THAT(RunCommand(monitor, "info status"), HasSubstr("VM status: running"));
  monitor.Send("system_reset\n");
  EXPECT_TRUE(SaysTwice(monitor, kHelloLine)) << monitor.Describe();
  monitor.Send("quit\n");
  EXPECT_ENDS(monitor, 0);
  EXPECT_TRUE(monitor.TerminalIsAsBefore());
}

TEST_F(NativeLifecycle, FirstSigtermPressesTheButtonTheSecondEnds) {
  MonitorProcess monitor(Hello(""));  // stops for good: nobody answers the button
  ASSERT_TEXT(monitor, kHelloLine);
  ASSERT_TRUE(monitor.Signal(SIGTERM));
  monitor.ReadFor(kShortWhile);
  EXPECT_TRUE(monitor.running()) << monitor.Describe();
  ASSERT_TRUE(monitor.Signal(SIGTERM));
  EXPECT_ENDS(monitor, 0);
}

TEST_F(NativeLifecycle, SmpGuestsEndToo) {
  MonitorProcess monitor(Hello("0") + kDebugExit + Arguments{"-smp", "4"});
  EXPECT_TEXT(monitor, kHelloLine);
  EXPECT_ENDS(monitor, 1);
}

class NativeHelp : public SystemTest {};

TEST_F(NativeHelp, GoesToStandardOutputAndSucceeds) {
  const std::vector<Arguments> lines = {
      {"-help"},
      {"--help"},
      {"-h"},
      {"-version"},
      {"--version"},
      {"-machine", "help"},
      {"-cpu", "help"},
      {"-accel", "help"},
      {"-object", "help"},
      {"-object", "memory-backend-guest-memfd,help"},
      {"-device", "help"},
      {"-d", "help"},
      {"-trace", "help"},
  };
  for (const Arguments& line : lines) {
    MonitorProcess monitor(line);
    EXPECT_ENDS(monitor, 0);
    EXPECT_NE(monitor.output(), "") << monitor.Describe();
    EXPECT_EQ(monitor.errors(), "");
  }
}

}  // namespace
}  // namespace holdfast::test
