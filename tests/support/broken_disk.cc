// SPDX-License-Identifier: Apache-2.0
#include "support/broken_disk.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <thread>

namespace holdfast::test {
namespace {

bool BreakReads(std::uint32_t begin, std::uint32_t end) {
  // The halves of the offset (x86 is little-endian).
  constexpr unsigned kLow = offsetof(seccomp_data, args[3]);
  std::array<sock_filter, 10> filter{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 7, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pread64, 0, 5),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kLow + 4),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kLow),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, begin, 0, 1),
      BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, end, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EIO),
  }};
  const sock_fprog program{.len = filter.size(), .filter = filter.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
}

}  // namespace

bool RunOnBrokenDisk(std::uint32_t begin, std::uint32_t end, const std::function<void()>& body) {
  bool broken = false;
  std::thread([&] {
    broken = BreakReads(begin, end);
    if (broken) body();
  }).join();
  return broken;
}

}  // namespace holdfast::test
