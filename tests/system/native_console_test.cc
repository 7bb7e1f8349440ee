// SPDX-License-Identifier: Apache-2.0
// Where the guest's serial port goes, and what the terminal looks like afterwards.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

#include "support/guest_vm.h"
#include "system/fixture.h"

namespace holdfast::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Polls until `done` or the time is over.
template <typename Condition>
bool Eventually(Condition done) {
  const auto end = std::chrono::steady_clock::now() +
                   std::chrono::duration<double>(ScaledSeconds(MonitorProcess::kLong));
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return true;
}

// Reads from a stream until it has `text`, or its end, or no more time.
std::string ReadUntil(int fd, std::string_view text) {
  std::string got;
  pollfd ready{fd, POLLIN, 0};
  const int timeout = static_cast<int>(ScaledSeconds(MonitorProcess::kLong) * 1000);
  while (got.find(text) == std::string::npos && ::poll(&ready, 1, timeout) > 0) {
    std::array<char, 256> buffer;
    const ssize_t count = ::read(fd, buffer.data(), buffer.size());
    if (count <= 0) break;
    got.append(buffer.data(), static_cast<std::size_t>(count));
  }
  return got;
}

UniqueFd Connect(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  if (!Eventually([&] { return ::connect(fd.get(), generic, sizeof address) == 0; }))
    ADD_FAILURE() << "cannot connect to " << path << ": errno " << errno;
  return fd;
}

class NativeConsole : public NativeTest {
 protected:
  // hello without -nographic: the serial port goes where `serial` says.
  Arguments HelloOn(std::string_view serial, std::string_view commands) const {
    return {"-m",       "32M",  "-kernel", HelloPath(),         "-append", std::string(commands),
            "-display", "none", "-serial", std::string(serial), "-device", "isa-debug-exit"};
  }
};

TEST_F(NativeConsole, GuestGetsWhatIsTyped) {
  MonitorProcess monitor(Hello("e0") + kDebugExit, {.terminal = true});
  ASSERT_TEXT(monitor, kHelloLine);
  monitor.Send("abc");
  EXPECT_TEXT(monitor, "abc");
  monitor.Send(CtrlA('\x01'));  // Ctrl-a Ctrl-a sends one Ctrl-a
  EXPECT_TEXT(monitor, kCtrlA);
  monitor.Send("q");
  EXPECT_ENDS(monitor, 1);
  EXPECT_TRUE(monitor.TerminalIsAsBefore());
}

TEST_F(NativeConsole, TakesInputFromAPipeAndOutlivesItsEnd) {
  MonitorProcess monitor(Hello("e0") + kDebugExit);
  ASSERT_TEXT(monitor, kHelloLine);
  monitor.Send("pipe q");
  EXPECT_TEXT(monitor, "pipe q");
  EXPECT_ENDS(monitor, 1);
}

TEST_F(NativeConsole, TerminalIsRawWhileItRuns) {
  MonitorProcess monitor(Hello(""), {.terminal = true});
  ASSERT_TEXT(monitor, kHelloLine);
  EXPECT_FALSE(monitor.TerminalIsAsBefore());
}

TEST_F(NativeConsole, CtrlAXEnds) {
  MonitorProcess monitor(Hello(""), {.terminal = true});
  ASSERT_TEXT(monitor, kHelloLine);
  monitor.Send(CtrlA('x'));
  EXPECT_ENDS(monitor, 0);
  EXPECT_TRUE(monitor.TerminalIsAsBefore());
}

TEST_F(NativeConsole, CtrlAHHelps) {
  MonitorProcess monitor(Hello(""), {.terminal = true});
  ASSERT_TEXT(monitor, kHelloLine);
  monitor.Send(CtrlA('h'));
  EXPECT_TEXT(monitor, "C-a x");
  EXPECT_TEXT(monitor, "C-a c");
}

TEST_F(NativeConsole, CtrlACSwitchesToTheMonitorAndBack) {
  MonitorProcess monitor(Hello("e"), {.terminal = true});
  ASSERT_TEXT(monitor, kHelloLine);
  monitor.Send(CtrlA('c'));
  ASSERT_TEXT(monitor, kPrompt);
  EXPECT_THAT(RunCommand(monitor, "help"), HasSubstr("system_reset"));
  EXPECT_THAT(RunCommand(monitor, "nonsense"), HasSubstr("unknown command: 'nonsense'"));
  monitor.Send(CtrlA('c'));
  monitor.Send("xyz");
  EXPECT_TEXT(monitor, "xyz");
}

// However it ends, the shell behind it must be usable.
TEST_F(NativeConsole, TerminalIsLeftAsItWasAlsoAfterSignals) {
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGSEGV, SIGABRT, SIGBUS}) {
    SCOPED_TRACE(signal);
    MonitorProcess monitor(Hello(""), {.terminal = true});
    ASSERT_TEXT(monitor, kHelloLine);
    ASSERT_TRUE(monitor.Signal(signal));
    if (signal == SIGTERM || signal == SIGINT || signal == SIGHUP) {
      monitor.ReadFor(0.3);
      monitor.Signal(signal);  // the second ends
    }
    ASSERT_TRUE(monitor.WaitForExit().has_value()) << monitor.Describe();
    EXPECT_TRUE(monitor.TerminalIsAsBefore());
  }
}

TEST_F(NativeConsole, SerialOnStdioHasNoEscape) {
  MonitorProcess monitor(HelloOn("stdio", "e0"));
  ASSERT_TEXT(monitor, kHelloLine);
  monitor.Send(CtrlA('h') + "q");
  EXPECT_TEXT(monitor, CtrlA('h'));
  EXPECT_ENDS(monitor, 1);
}

TEST_F(NativeConsole, SerialInAFile) {
  MonitorProcess monitor(HelloOn("file:" + Path("log"), "0"));
  EXPECT_ENDS(monitor, 1);
  EXPECT_THAT(ReadAll(Path("log")), HasSubstr(kHelloLine));
  EXPECT_THAT(monitor.output(), Not(HasSubstr(kHelloLine)));
}

TEST_F(NativeConsole, SerialNowhere) {
  for (const char* where : {"null", "none"}) {
    SCOPED_TRACE(where);
    MonitorProcess monitor(HelloOn(where, "0"));
    EXPECT_ENDS(monitor, 1);
    EXPECT_THAT(monitor.output(), Not(HasSubstr(kHelloLine)));
    EXPECT_EQ(monitor.errors(), "");
  }
}

TEST_F(NativeConsole, SerialOnAUnixSocket) {
  MonitorProcess monitor(HelloOn("unix:" + Path("socket") + ",server=on,wait=off", "ee0"));
  const UniqueFd console = Connect(Path("socket"));
  // It may have greeted before anybody listened, but it echoes.
  ASSERT_EQ(::send(console.get(), "echo", 4, MSG_NOSIGNAL), 4);
  EXPECT_THAT(ReadUntil(console.get(), "echo"), HasSubstr("echo"));
  // A second visitor is welcome once the first has gone, and the guest never noticed.
  ASSERT_EQ(::send(console.get(), "q", 1, MSG_NOSIGNAL), 1);
  EXPECT_THAT(ReadUntil(console.get(), "q"), HasSubstr("q"));
  ::shutdown(console.get(), SHUT_RDWR);
  EXPECT_TRUE(monitor.running());
  const UniqueFd second = Connect(Path("socket"));
  ASSERT_EQ(::send(second.get(), "againq", 6, MSG_NOSIGNAL), 6);
  EXPECT_THAT(ReadUntil(second.get(), "again"), HasSubstr("again"));
  EXPECT_ENDS(monitor, 1);
}

TEST_F(NativeConsole, UnixSocketWaitsForAVisitorIfAsked) {
  MonitorProcess monitor(HelloOn("unix:" + Path("socket") + ",server=on,wait=on", "0"));
  const UniqueFd console = Connect(Path("socket"));
  EXPECT_THAT(ReadUntil(console.get(), kHelloLine), HasSubstr(kHelloLine));
  EXPECT_ENDS(monitor, 1);
}

TEST_F(NativeConsole, SerialOnAPtyItNames) {
  MonitorProcess monitor(HelloOn("pty", "e0"));
  // As QEMU says it, on standard output there; either stream is fine for a script.
  std::string path;
  ASSERT_TRUE(Eventually([&] {
    monitor.ReadFor(0.02);
    const std::string text = monitor.output() + monitor.errors();
    const std::size_t at = text.find("char device redirected to /dev/pts/");
    if (at == std::string::npos) return false;
    const std::size_t start = text.find("/dev", at);
    const std::size_t end = text.find_first_of(" \n", start);
    if (end == std::string::npos) return false;
    path = text.substr(start, end - start);
    return true;
  })) << monitor.Describe();
  const UniqueFd console(::open(path.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC));
  ASSERT_TRUE(console.valid()) << path;
  ASSERT_EQ(::write(console.get(), "echo", 4), 4);
  EXPECT_THAT(ReadUntil(console.get(), "echo"), HasSubstr("echo"));
  ASSERT_EQ(::write(console.get(), "q", 1), 1);
  EXPECT_ENDS(monitor, 1);
}

TEST_F(NativeConsole, FourPortsMayGoToFourPlaces) {
  MonitorProcess monitor(
      HelloOn("file:" + Path("com1"), "0") +
      Arguments{"-serial", "file:" + Path("com2"), "-serial", "null", "-serial", "none"});
  EXPECT_ENDS(monitor, 1);
  EXPECT_THAT(ReadAll(Path("com1")), HasSubstr(kHelloLine));
  EXPECT_EQ(ReadAll(Path("com2")), "");
}

class NativeDaemon : public NativeConsole {};

TEST_F(NativeDaemon, LeavesItsPidAndRunsOn) {
  MonitorProcess monitor(HelloOn("unix:" + Path("socket") + ",server=on,wait=off", "e0") +
                         Arguments{"-daemonize", "-pidfile", Path("pid")});
  EXPECT_ENDS(monitor, 0);  // the parent, once the guest is set up
  const pid_t daemon = std::atoi(ReadAll(Path("pid")).c_str());
  ASSERT_GT(daemon, 0);
  EXPECT_NE(daemon, monitor.pid());
  EXPECT_EQ(::kill(daemon, 0), 0);
  EXPECT_EQ(::getsid(daemon) == ::getsid(0), false) << "it must not die with this terminal";
  const UniqueFd console = Connect(Path("socket"));
  ASSERT_EQ(::send(console.get(), "echoq", 5, MSG_NOSIGNAL), 5);
  EXPECT_THAT(ReadUntil(console.get(), "echo"), HasSubstr("echo"));
  if (!Eventually([&] { return ::kill(daemon, 0) != 0; })) {
    ::kill(daemon, SIGKILL);
    ADD_FAILURE() << "the daemon did not end with its guest";
  }
  EXPECT_FALSE(std::ifstream(Path("pid")).good()) << "the pid file outlived the daemon";
}

TEST_F(NativeDaemon, SaysWhatFailsBeforeItLeaves) {
  MonitorProcess monitor({"-kernel", Path("missing"), "-display", "none", "-serial", "null",
                          "-daemonize", "-pidfile", Path("pid")});
  EXPECT_ENDS(monitor, 1);
  EXPECT_THAT(monitor.errors(), HasSubstr(Path("missing")));
}

TEST_F(NativeDaemon, PidFileHoldsThePidWithoutDaemonizeToo) {
  MonitorProcess monitor(Hello("e0") + kDebugExit + Arguments{"-pidfile", Path("pid")});
  ASSERT_TEXT(monitor, kHelloLine);
  EXPECT_EQ(std::atoi(ReadAll(Path("pid")).c_str()), monitor.pid());
  monitor.Send("q");
  EXPECT_ENDS(monitor, 1);
  EXPECT_FALSE(std::ifstream(Path("pid")).good());
}

}  // namespace
}  // namespace holdfast::test
