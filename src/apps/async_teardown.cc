// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <vector>

#include <holdfast/mapping.h>
#include <holdfast/unique_fd.h>

#include "apps/run_with.h"
#include "apps/sandbox.h"

#ifdef __SANITIZE_THREAD__
// ThreadSanitizer's own clone() takes the child for a fork, with memory of its own: in both
// processes it unlocks the same locks. The C library's other name for the function is not replaced.
extern "C" int __clone(int (*function)(void*), void* stack, int flags, void* argument, ...);
#define HF_CLONE __clone
#else
#define HF_CLONE ::clone
#endif

namespace holdfast::apps {
namespace {

constexpr std::size_t kStackSize = 64 * 1024;
constexpr std::string_view kCallsOfTheWaiting[] = {"read", "write", "close", "exit_group"};

// What the second process works with.
struct Handover {
  int alive = -1;    // read end of a pipe whose only write end is the first process's
  int ready = -1;    // write end of a pipe: a byte when all is set up
  unsigned low = 0;  // the lower of the two, and the higher
  unsigned high = 0;
  sock_fprog filter{};
};

// All memory is shared with the first process, thread-local variables (errno) included: once that
// one goes on, this does nothing but wait. The filter makes it useless to somebody who gets hold
// of the first process and writes into this stack. System calls only: a sanitizer's own state is
// the first process's as well, and not made for two.
__attribute__((no_sanitize("address", "thread", "undefined"))) int WaitForTheEnd(void* argument) {
  const Handover& handover = *static_cast<const Handover*>(argument);
  const int alive = handover.alive;
  const int ready = handover.ready;
  ::syscall(SYS_prctl, PR_SET_NAME, "cleanup", 0, 0, 0);
  if (handover.low > 0) ::syscall(SYS_close_range, 0U, handover.low - 1, 0U);
  if (handover.high > handover.low + 1) {
    ::syscall(SYS_close_range, handover.low + 1, handover.high - 1, 0U);
  }
  ::syscall(SYS_close_range, handover.high + 1, ~0U, 0U);
  if (::syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &handover.filter) != 0 ||
      ::syscall(SYS_write, ready, "r", 1) != 1) {
    ::syscall(SYS_exit_group, EXIT_FAILURE);
  }
  // From the byte on the first process goes on, and the handover goes with its stack.
  ::syscall(SYS_close, ready);
  char byte = 0;
  while (::syscall(SYS_read, alive, &byte, 1) > 0) {
  }
  ::syscall(SYS_exit_group, EXIT_SUCCESS);
  return EXIT_SUCCESS;
}

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};
Result<Pipe> MakePipe() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return FailErrno("pipe for async-teardown");
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

}  // namespace

Status StartAsyncTeardown() {
  HF_TRY(std::vector<sock_filter> filter, MakePlainFilter(kCallsOfTheWaiting));
  HF_TRY(Pipe alive, MakePipe());
  HF_TRY(Pipe ready, MakePipe());
  HF_TRY(Mapping stack, Mapping::MapAnonymous(kStackSize, "stack for async-teardown"));
  Handover handover{.alive = alive.read_end.get(), .ready = ready.write_end.get()};
  handover.low = static_cast<unsigned>(std::min(handover.alive, handover.ready));
  handover.high = static_cast<unsigned>(std::max(handover.alive, handover.ready));
  handover.filter = {.len = static_cast<unsigned short>(filter.size()), .filter = filter.data()};
  // Nobody's signals are for it: what ends the first process ends it too, in good time.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const int pid = HF_CLONE(&WaitForTheEnd, stack.data() + stack.size(), CLONE_VM, &handover);
  const int os_errno = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0)
    return Fail(Error::FromErrno("cannot start the process of async-teardown", os_errno));
  ready.write_end.reset();
  char byte = 0;
  ssize_t got = 0;
  do {
    got = ::read(ready.read_end.get(), &byte, 1);
  } while (got < 0 && errno == EINTR);
  if (got != 1) return Fail(Errc::kSystem, "the process of async-teardown has ended at once");
  // Both belong to that process now, until the memory itself goes.
  static Mapping* const stack_of_the_waiting = new Mapping(std::move(stack));
  static const int held_while_alive = alive.write_end.release();
  static_cast<void>(stack_of_the_waiting);
  static_cast<void>(held_while_alive);
  return {};
}

}  // namespace holdfast::apps
