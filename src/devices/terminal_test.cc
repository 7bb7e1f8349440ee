// SPDX-License-Identifier: Apache-2.0
#include "devices/terminal.h"

#include <gtest/gtest.h>
#include <pty.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdlib>
#include <functional>

#include <holdfast/unique_fd.h>

#include "devices/chardev_test_support.h"

namespace holdfast::devices {
namespace {

using testing::Pipe;

// A child process on a terminal of its own; the test looks at the terminal from the other side.
class TerminalTest : public ::testing::Test {
 protected:
  // In the child: `body`, then exit status 0.
  void Start(const std::function<void()>& body) {
    int master = -1;
    child_ = ::forkpty(&master, nullptr, nullptr, nullptr);
    ASSERT_GE(child_, 0);
    if (child_ == 0) {
      const rlimit no_core{};
      ::setrlimit(RLIMIT_CORE, &no_core);
      // Sanitizers have handlers of their own, and a shell starts what runs in its background with
      // SIGQUIT ignored; here the default is what must happen in the end.
      for (const int signal : {SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE, SIGQUIT})
        ::signal(signal, SIG_DFL);
      body();
      ::_exit(0);
    }
    master_.reset(master);
  }
  void TearDown() override {
    if (child_ > 0) {
      ::kill(child_, SIGKILL);
      ::waitpid(child_, nullptr, 0);
    }
  }
  int Wait(int options = 0) {
    int status = 0;
    EXPECT_EQ(::waitpid(child_, &status, options), child_);
    if (!WIFSTOPPED(status)) child_ = -1;
    return status;
  }
  // In the child: tells the test, and waits for its go.
  void Meet() const {
    char c = 'm';
    if (::write(to_test_.write.get(), &c, 1) != 1 || ::read(to_child_.read.get(), &c, 1) != 1)
      ::_exit(99);
  }
  void AwaitChild() {
    char c = 0;
    // A child that has died must not leave us waiting.
    to_test_.write.reset();
    ASSERT_EQ(::read(to_test_.read.get(), &c, 1), 1);
  }
  void LetChildGo() { ASSERT_EQ(::write(to_child_.write.get(), "g", 1), 1); }
  termios Settings() const {
    termios settings{};
    EXPECT_EQ(::tcgetattr(master_.get(), &settings), 0);
    return settings;
  }
  bool Raw() const { return (Settings().c_lflag & (ICANON | ECHO)) == 0; }

  static std::unique_ptr<Terminal> MakeRaw(bool signals = true) {
    auto made = Terminal::MakeRaw(STDIN_FILENO, signals);
    if (!made || *made == nullptr) ::_exit(98);
    return *std::move(made);
  }

  UniqueFd master_;
  Pipe to_test_;
  Pipe to_child_;
  pid_t child_ = -1;
};

TEST_F(TerminalTest, IsRawAsLongAsTheObjectLives) {
  Start([&] {
    {
      const auto terminal = MakeRaw();
      Meet();
    }
    Meet();
  });
  const termios before = Settings();
  ASSERT_FALSE(Raw());
  AwaitChild();
  EXPECT_TRUE(Raw());
  EXPECT_NE(Settings().c_lflag & ISIG, 0U) << "Ctrl-C stays a signal";
  EXPECT_NE(Settings().c_oflag & OPOST, 0U) << "a newline still returns the carriage";
  EXPECT_EQ(Settings().c_iflag & (ICRNL | IXON), 0U);
  LetChildGo();
  AwaitChild();
  EXPECT_EQ(Settings().c_lflag, before.c_lflag);
  EXPECT_EQ(Settings().c_iflag, before.c_iflag);
  EXPECT_EQ(Settings().c_oflag, before.c_oflag);
  LetChildGo();
  EXPECT_EQ(Wait(), 0);
}

TEST_F(TerminalTest, WithoutSignalsControlCIsInput) {
  Start([&] {
    const auto terminal = MakeRaw(false);
    Meet();
  });
  AwaitChild();
  EXPECT_EQ(Settings().c_lflag & ISIG, 0U);
  LetChildGo();
  Wait();
}

void Fault() {
  void* const page = ::mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  *static_cast<volatile char*>(page) = 1;
}

TEST_F(TerminalTest, IsRestoredHoweverTheProcessEnds) {
  const struct {
    const char* why;
    std::function<void()> end;
    int signal;  // that ends it; 0: none
  } kCases[] = {
      {"exit()", [] { std::exit(0); }, 0},
      {"a real fault", &Fault, SIGSEGV},
      {"abort()", [] { std::abort(); }, SIGABRT},
      {"SIGSEGV from outside", [] { ::kill(::getpid(), SIGSEGV); }, SIGSEGV},
      {"SIGBUS", [] { ::raise(SIGBUS); }, SIGBUS},
      {"SIGILL", [] { ::raise(SIGILL); }, SIGILL},
      {"SIGFPE", [] { ::raise(SIGFPE); }, SIGFPE},
      {"SIGQUIT", [] { ::raise(SIGQUIT); }, SIGQUIT},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    to_test_ = Pipe();
    to_child_ = Pipe();
    std::unique_ptr<Terminal> terminal;
    Start([&] {
      terminal = MakeRaw();
      Meet();
      c.end();
    });
    AwaitChild();
    EXPECT_TRUE(Raw());
    LetChildGo();
    const int status = Wait();
    EXPECT_EQ(WIFSIGNALED(status) ? WTERMSIG(status) : 0, c.signal);
    EXPECT_FALSE(Raw());
  }
}

TEST_F(TerminalTest, ControlZGivesItBackUntilTheProcessGoesOn) {
  Start([&] {
    const auto terminal = MakeRaw();
    ::raise(SIGTSTP);
    Meet();
  });
  const int status = Wait(WUNTRACED);
  ASSERT_TRUE(WIFSTOPPED(status));
  EXPECT_FALSE(Raw());
  ::kill(child_, SIGCONT);
  AwaitChild();
  EXPECT_TRUE(Raw());
  LetChildGo();
  EXPECT_EQ(Wait(), 0);
  EXPECT_FALSE(Raw());
}

TEST_F(TerminalTest, IsNotTouchedFromTheBackground) {
  Start([&] {
    // A child of the child in a process group of its own: a background job of this terminal.
    const pid_t job = ::fork();
    if (job == 0) {
      ::setpgid(0, 0);
      {
        const auto terminal = MakeRaw();
        Meet();
      }
      ::_exit(0);
    }
    int status = 0;
    ::waitpid(job, &status, WUNTRACED);
    ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 97);
  });
  AwaitChild();
  EXPECT_FALSE(Raw());
  LetChildGo();
  EXPECT_EQ(Wait(), 0) << "neither stopped (SIGTTOU) nor failed";
}

TEST_F(TerminalTest, WhatIsNoTerminalIsLeftAlone) {
  const auto made = Terminal::MakeRaw(to_test_.read.get(), true);
  ASSERT_TRUE(made);
  EXPECT_EQ(*made, nullptr);
}

TEST_F(TerminalTest, ThereIsOneAtATime) {
  Start([&] {
    const auto terminal = MakeRaw();
    const auto second = Terminal::MakeRaw(STDIN_FILENO, true);
    if (second) ::_exit(1);
  });
  EXPECT_EQ(Wait(), 0);
}

}  // namespace
}  // namespace holdfast::devices
