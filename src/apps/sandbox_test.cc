// SPDX-License-Identifier: Apache-2.0
#include "apps/sandbox.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <string>
#include <string_view>
#include <thread>

#include "base/event_loop.h"
#include "base/thread_role.h"
#include "object/iothread.h"

namespace holdfast::apps {
namespace {

using ::testing::ExitedWithCode;

constexpr int kSurvived = 42;

// What a thread of the monitor does in a process that is confined.
using Deed = void (*)();

void OpenFile() {
  if (::open("/dev/null", O_RDONLY) < 0) ::_exit(2);
}
void MakeSocket() {
  if (::socket(AF_UNIX, SOCK_STREAM, 0) < 0) ::_exit(2);
}
void StartProgram() {
  ::execl("/bin/true", "true", nullptr);
  ::_exit(3);
}
void Fork() {
  if (::fork() == 0) ::_exit(0);
}
void Trace() {
  ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
}
void BecomeSomebody() {
  if (::setuid(::getuid()) != 0) ::_exit(2);
}
void RaisePriority() {
  ::syscall(SYS_setpriority, 0, 0, 0);
}
void SignalOthers() {
  ::syscall(SYS_tgkill, ::getppid(), ::getppid(), 0);
}
void StealTerminal() {
  ::ioctl(0, TIOCSTI, "x");
}
void MapCode() {
  ::syscall(SYS_mmap, nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}
void WriteAndFree() {
  delete[] new char[10'000'000];
  if (::write(STDERR_FILENO, "", 0) != 0) ::_exit(2);
}

// Confines this process, does `deed` in a thread of the role, and exits with kSurvived if that
// returns.
[[noreturn]] void ConfinedDo(ThreadRole role, Deed deed, SandboxOptions options) {
  options.enabled = true;
  if (!EnterSandbox(options)) ::_exit(4);
  const auto work = [&] {
    ::pthread_setname_np(::pthread_self(), "CPU 7/KVM");
    ConfineThread(role);
    deed();
  };
  if (role == ThreadRole::kMain) {
    work();
  } else {
    std::thread(work).join();
  }
  ::_exit(kSurvived);
}

class SandboxTest : public ::testing::Test {
 protected:
  SandboxTest() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};

TEST_F(SandboxTest, EndsTheProcessWithTheNamesOfCallAndThread) {
  const struct {
    ThreadRole role;
    Deed deed;
    const char* call;
  } cases[] = {
      {ThreadRole::kMain, StartProgram, "execve .number 59."},
      {ThreadRole::kMain, Fork, "clone .number 56."},
      {ThreadRole::kMain, Trace, "ptrace"},
      {ThreadRole::kMain, BecomeSomebody, "setuid"},
      {ThreadRole::kMain, RaisePriority, "setpriority"},
      {ThreadRole::kMain, SignalOthers, "tgkill"},
      {ThreadRole::kMain, StealTerminal, "ioctl"},
      {ThreadRole::kWorker, OpenFile, "openat"},
      {ThreadRole::kWorker, MakeSocket, "socket"},
      {ThreadRole::kWorker, MapCode, "mmap"},
      {ThreadRole::kVcpu, OpenFile, "openat"},
      {ThreadRole::kVcpu, MakeSocket, "socket"},
      {ThreadRole::kVcpu, MapCode, "mmap"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.call);
    EXPECT_EXIT(ConfinedDo(c.role, c.deed, {}), ExitedWithCode(1),
                std::string("holdfast: -sandbox: the thread 'CPU 7/KVM' made a system call that "
                            "is not allowed there: ") +
                    c.call);
  }
}

void SendOnSocket() {
  ::send(STDERR_FILENO, "", 0, 0);
}
void ChangeTap() {
  constexpr unsigned long kTunSetQueue = 0x400454d9;
  ::ioctl(STDERR_FILENO, kTunSetQueue, nullptr);
}
void FlushAndWait() {
  ::fdatasync(STDERR_FILENO);
  ::poll(nullptr, 0, 1);
}

// As aio=threads does.
void MakeThread() {
  std::thread([confined = IsThreadConfined()] {
    if (confined) InheritConfinement();
    ConfineThread(ThreadRole::kWorker);
    FlushAndWait();
  }).join();
}
void OpenFileInThread() {
  std::thread([confined = IsThreadConfined()] {
    if (confined) InheritConfinement();
    OpenFile();
  }).join();
}

// Confines this process with an `iothread` in it, has that do `deed` as a device would, and exits
// with kSurvived if that returns.
[[noreturn]] void ConfinedIoThreadDoes(Deed deed, bool runs_before) {
  object::IoThread thread("disks");
  if (runs_before && !thread.Loop()) ::_exit(4);
  const SandboxOptions options{.enabled = true};
  if (!EnterSandbox(options)) ::_exit(4);
  const auto loop = thread.Loop();
  if (!loop) ::_exit(4);
  std::atomic<bool> done = false;
  // The work that wakes it finds it confined: it has looked before it waited again.
  (*loop)->Post([] {});
  (*loop)->Post([&] {
    (*loop)->Post([&] {
      deed();
      done = true;
      done.notify_all();
    });
  });
  done.wait(false);
  ::_exit(kSurvived);
}

TEST_F(SandboxTest, AnIoThreadHasAListOfItsOwn) {
  const struct {
    Deed deed;
    const char* call;  // null: allowed
  } cases[] = {
      {OpenFile, "openat .number 257."},
      {MakeSocket, "socket .number 41."},
      {SendOnSocket, "sendto"},
      {ChangeTap, "ioctl"},
      {Fork, "clone"},
      {MapCode, "mmap"},
      {OpenFileInThread, "openat"},
      {MakeThread, nullptr},
      {FlushAndWait, nullptr},
      {WriteAndFree, nullptr},
  };
  for (const bool runs_before : {false, true}) {
    for (const auto& c : cases) {
      SCOPED_TRACE(c.call == nullptr ? "allowed" : c.call);
      if (c.call == nullptr) {
        EXPECT_EXIT(ConfinedIoThreadDoes(c.deed, runs_before), ExitedWithCode(kSurvived), "");
        continue;
      }
      EXPECT_EXIT(ConfinedIoThreadDoes(c.deed, runs_before), ExitedWithCode(1),
                  std::string("holdfast: -sandbox: the thread 'IO disks' made a system call that "
                              "is not allowed there: ") +
                      c.call);
    }
  }
}

// Each allows what the smaller ones do, and more.
TEST_F(SandboxTest, TheListsOfThreadsAreNested) {
  const auto size = [](ThreadRole role) {
    const auto filter = MakeSandboxFilter(role, {.enabled = true});
    return filter ? filter->size() : 0;
  };
  EXPECT_LT(size(ThreadRole::kVcpu), size(ThreadRole::kWorker));
  EXPECT_LT(size(ThreadRole::kWorker), size(ThreadRole::kMain));
}

TEST_F(SandboxTest, LetsEachThreadDoItsWork) {
  const struct {
    ThreadRole role;
    Deed deed;
  } cases[] = {{ThreadRole::kMain, OpenFile},
               {ThreadRole::kMain, MakeSocket},
               {ThreadRole::kMain, WriteAndFree},
               {ThreadRole::kWorker, WriteAndFree},
               {ThreadRole::kVcpu, WriteAndFree}};
  for (const auto& c : cases) {
    EXPECT_EXIT(ConfinedDo(c.role, c.deed, {}), ExitedWithCode(kSurvived), "");
  }
}

TEST_F(SandboxTest, AllowsWhatItsOptionsAllow) {
  const struct {
    Deed deed;
    SandboxOptions options;
  } cases[] = {{Fork, {.spawn = true}},
               {BecomeSomebody, {.elevate_privileges = true}},
               {RaisePriority, {.resource_control = true}}};
  for (const auto& c : cases) {
    EXPECT_EXIT(ConfinedDo(ThreadRole::kMain, c.deed, c.options), ExitedWithCode(kSurvived), "");
  }
}

bool HasCapabilities() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {};
  ::syscall(SYS_capget, &header, sets);
  return (sets[0].effective | sets[0].permitted | sets[0].inheritable | sets[1].effective) != 0;
}

TEST_F(SandboxTest, NoThreadKeepsCapabilitiesOrGetsNewOnes) {
  EXPECT_EXIT(ConfinedDo(ThreadRole::kMain,
                         [] {
                           if (HasCapabilities()) ::_exit(5);
                           std::thread([] {
                             if (HasCapabilities()) ::_exit(6);
                           }).join();
                         },
                         {}),
              ExitedWithCode(kSurvived), "");
  EXPECT_EXIT(
      {
        SandboxOptions options{.enabled = true};
        if (!EnterSandbox(options)) ::_exit(4);
        // By file: the list has no such prctl.
        std::FILE* const status = std::fopen("/proc/self/status", "re");
        char line[256];
        while (std::fgets(line, sizeof line, status) != nullptr) {
          if (std::string_view(line) == "NoNewPrivs:\t1\n") ::_exit(kSurvived);
        }
        ::_exit(5);
      },
      ExitedWithCode(kSurvived), "");
}

TEST_F(SandboxTest, AThreadOfBeforeIsConfinedToo) {
  EXPECT_EXIT(
      {
        std::atomic<bool> confined = false;
        std::thread early([&] {
          while (!confined) std::this_thread::yield();
          Trace();
        });
        SandboxOptions options{.enabled = true};
        if (!EnterSandbox(options)) ::_exit(4);
        confined = true;
        early.join();
        ::_exit(kSurvived);
      },
      ExitedWithCode(1), "not allowed there: ptrace");
}

TEST_F(SandboxTest, OffChangesNothing) {
  EXPECT_EXIT(
      {
        if (!EnterSandbox({})) ::_exit(4);
        Fork();
        ::_exit(kSurvived);
      },
      ExitedWithCode(kSurvived), "");
}

}  // namespace
}  // namespace holdfast::apps
