// SPDX-License-Identifier: Apache-2.0
#include "apps/process.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "base/event_loop.h"
#include "base/log.h"

namespace holdfast::apps {
namespace {

// Runs `body` in a process of its own and returns its exit status.
template <typename Body>
int InChild(Body&& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(DaemonTest, TheParentExitsWith0OnceTheDaemonIsReady) {
  EXPECT_EQ(InChild([] {
              auto daemon = Daemon::Enter();
              return daemon && daemon->Ready() ? 0 : 7;
            }),
            0);
}

TEST(DaemonTest, TheParentExitsWith1IfTheDaemonEndsBefore) {
  EXPECT_EQ(InChild([] {
              const auto daemon = Daemon::Enter();
              return daemon ? 0 : 7;
            }),
            1);
}

TEST(PidFileTest, HoldsThePidAndGoesWithItsOwner) {
  const std::string path = ::testing::TempDir() + "/process_test.pid";
  {
    const auto file = PidFile::Create(path);
    ASSERT_TRUE(file) << file.error().ToString();
    int pid = 0;
    std::ifstream(path) >> pid;
    EXPECT_EQ(pid, ::getpid());
    // Another process must not get the lock.
    EXPECT_EQ(InChild([&] {
                const auto second = PidFile::Create(path);
                return second || second.error().message().find("cannot lock") == std::string::npos;
              }),
              0);
  }
  EXPECT_NE(::access(path.c_str(), F_OK), 0);
}

TEST(PidFileTest, AFileThatCannotBeMadeIsNamed) {
  const auto file = PidFile::Create("/nonexistent/pid");
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().message(),
            "cannot create PID file: cannot open '/nonexistent/pid': No such file or directory");
}

TEST(SignalsTest, ASignalReachesTheHandlerOnTheLoop) {
  EXPECT_EQ(InChild([] {
              const auto loop = EventLoop::Create();
              int got = 0;
              int from = 0;
              const auto signals = Signals::Create(**loop, [&](int signal, int sender) {
                got = signal;
                from = sender;
                (*loop)->Quit();
              });
              if (!signals) return 1;
              ::kill(::getpid(), SIGTERM);
              if (!(*loop)->Run()) return 2;
              return got == SIGTERM && from == ::getpid() ? 0 : 3;
            }),
            0);
}

TEST(SetUpProcessTest, UnknownTraceEventsOnlyWarn) {
  Options options;
  options.traces.push_back({.pattern = "nosuch", .events_file = {}, .file = {}});
  options.traces.push_back({.pattern = "nosuch*", .events_file = {}, .file = {}});
  ::testing::internal::CaptureStderr();
  EXPECT_TRUE(SetUpProcess(options));
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "holdfast: warning: trace event 'nosuch' does not exist\n");
}

TEST(SetUpProcessTest, ALogFileThatCannotBeOpenedIsAnError) {
  Options options;
  options.log_file = "/nonexistent/x";
  EXPECT_FALSE(SetUpProcess(options));
}

}  // namespace
}  // namespace holdfast::apps
