// SPDX-License-Identifier: Apache-2.0
// The monitor under -sandbox and -run-with: it works, and has less than before.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "system/fixture.h"

namespace holdfast::test {
namespace {

using ::testing::HasSubstr;

// A line of /proc/PID/task/TID/status of each thread of a process.
std::vector<std::string> OfEachThread(pid_t pid, const std::string& field) {
  std::vector<std::string> values;
  const std::string tasks = "/proc/" + std::to_string(pid) + "/task";
  for (const auto& task : std::filesystem::directory_iterator(tasks)) {
    std::istringstream status(ReadAll(task.path() / "status"));
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with(field + ":\t")) values.push_back(line.substr(field.size() + 2));
    }
  }
  return values;
}

class NativeSandbox : public NativeTest {
 protected:
  // What looks for leaks at the end attaches to the monitor as a debugger does and reads /proc:
  // the very things that a sandbox is there to prevent.
  void SetUp() override {
    NativeTest::SetUp();
    if (const char* options = std::getenv("ASAN_OPTIONS")) sanitizer_options_ = options;
    ::setenv("ASAN_OPTIONS", (sanitizer_options_ + ":detect_leaks=0").c_str(), 1);
  }
  void TearDown() override { ::setenv("ASAN_OPTIONS", sanitizer_options_.c_str(), 1); }

 private:
  std::string sanitizer_options_;
};

TEST_F(NativeSandbox, GuestsRunResetAndAnswerInIt) {
  MonitorProcess monitor(Hello("e") + Arguments{"-sandbox", "on", "-smp", "2"}, {.terminal = true});
  ASSERT_TEXT(monitor, kHelloLine);
  monitor.Send(CtrlA('c'));
  ASSERT_TEXT(monitor, kPrompt);
  EXPECT_THAT(RunCommand(monitor, "info status"), HasSubstr("VM status: running"));
  EXPECT_THAT(RunCommand(monitor, "info cpus"), HasSubstr("CPU #1"));
  monitor.Send("system_reset\n");
  EXPECT_TRUE(SaysTwice(monitor, kHelloLine)) << "the kernel was not read again\n"
                                              << monitor.Describe();
  monitor.Send("quit\n");
  EXPECT_ENDS(monitor, 0);
  EXPECT_TRUE(monitor.TerminalIsAsBefore());
}

TEST_F(NativeSandbox, NoThreadHasCapabilitiesOrGetsThem) {
  MonitorProcess monitor(Hello("") + Arguments{"-sandbox", "on", "-smp", "3"});
  ASSERT_TEXT(monitor, kHelloLine);
  const auto filters = OfEachThread(monitor.pid(), "Seccomp");
  EXPECT_GE(filters.size(), 4U);
  EXPECT_THAT(filters, ::testing::Each("2"));
  EXPECT_THAT(OfEachThread(monitor.pid(), "NoNewPrivs"), ::testing::Each("1"));
  // The guest waits on its first vCPU; the others take their turn as soon as they are scheduled.
  EXPECT_THAT(OfEachThread(monitor.pid(), "CapEff"), ::testing::Contains("0000000000000000"));
}

TEST_F(NativeSandbox, BecomesAUserInANewRoot) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can become somebody else";
  std::filesystem::create_directory(Path("root"));
  MonitorProcess monitor(Hello("r") + Arguments{"-sandbox", "on", "-run-with",
                                                "user=65534:65534,chroot=" + Path("root"),
                                                "-pidfile", Path("pid")});
  for (int boot = 0; boot < 2; ++boot) ASSERT_TEXT(monitor, kHelloLine);
  EXPECT_THAT(OfEachThread(monitor.pid(), "Uid"), ::testing::Each("65534\t65534\t65534\t65534"));
  EXPECT_THAT(OfEachThread(monitor.pid(), "Gid"), ::testing::Each("65534\t65534\t65534\t65534"));
  std::error_code error;
  EXPECT_EQ(
      std::filesystem::read_symlink("/proc/" + std::to_string(monitor.pid()) + "/root", error),
      std::filesystem::canonical(Path("root")));
}

TEST_F(NativeSandbox, RemovesItsPidFileFromANewRoot) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can change the root folder";
  std::filesystem::create_directory(Path("root"));
  // Without the sandbox root keeps the right to write anywhere.
  MonitorProcess monitor(Hello("p") + Arguments{"-chroot", Path("root"), "-pidfile", Path("pid")});
  EXPECT_ENDS(monitor, 0);
  EXPECT_FALSE(std::filesystem::exists(Path("pid")));
}

TEST_F(NativeSandbox, DaemonizesAndHandsMemoryToTheLastProcess) {
  MonitorProcess monitor(Hello("0") + kDebugExit +
                         Arguments{"-sandbox", "on", "-run-with", "async-teardown=on"});
  EXPECT_TEXT(monitor, kHelloLine);
  EXPECT_ENDS(monitor, 1);
  MonitorProcess daemon({"-m", "32M", "-kernel", HelloPath(), "-append", "p", "-display", "none",
                         "-serial", "file:" + Path("log"), "-daemonize", "-sandbox", "on"});
  EXPECT_ENDS(daemon, 0);
}

TEST_F(NativeSandbox, SaysWhatIsWrong) {
  const struct {
    Arguments arguments;
    const char* says;
  } cases[] = {
      {{"-sandbox", "maybe"}, "-sandbox maybe: "},
      {{"-sandbox", "on,spawn=perhaps"}, "spawn"},
      {{"-runas", "no:body"}, "User \"no:body\" doesn't exist (and is not <uid>:<gid>)"},
      {{"-run-with", "chroot=/no/such/folder"}, "chroot to '/no/such/folder' failed"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.says);
    MonitorProcess monitor(Hello("0") + c.arguments);
    EXPECT_ENDS(monitor, 1);
    EXPECT_THAT(monitor.errors(), HasSubstr(c.says));
  }
}

}  // namespace
}  // namespace holdfast::test
