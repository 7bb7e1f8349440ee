// SPDX-License-Identifier: Apache-2.0
#include "support/old_kernel.h"

#include <linux/filter.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <thread>

namespace holdfast::test {
namespace {

constexpr std::size_t kMostCapabilities = 32;

// The low halves of the system call's arguments (x86 is little-endian); all that matter here fit.
constexpr unsigned kNumber = offsetof(seccomp_data, nr);
constexpr unsigned kRequest = offsetof(seccomp_data, args[1]);
constexpr unsigned kCapability = offsetof(seccomp_data, args[2]);

sock_filter Load(unsigned offset) {
  return {static_cast<__u16>(BPF_LD | BPF_W | BPF_ABS), 0, 0, offset};
}
sock_filter SkipIfEqual(unsigned value, unsigned char if_equal, unsigned char otherwise) {
  return {static_cast<__u16>(BPF_JMP | BPF_JEQ | BPF_K), if_equal, otherwise, value};
}
sock_filter Return(unsigned action) {
  return {static_cast<__u16>(BPF_RET | BPF_K), 0, 0, action};
}

}  // namespace

bool HideKvmCapabilities(std::span<const int> capabilities) {
  std::array<sock_filter, 8 + 2 * kMostCapabilities> code{};
  std::size_t length = 0;
  const auto add = [&](sock_filter instruction) { code[length++] = instruction; };
  if (capabilities.size() > kMostCapabilities) {
    errno = E2BIG;
    return false;
  }
  add(Load(kNumber));
  add(SkipIfEqual(__NR_ioctl, 1, 0));
  add(Return(SECCOMP_RET_ALLOW));
  add(Load(kRequest));
  add(SkipIfEqual(KVM_CHECK_EXTENSION, 1, 0));
  add(Return(SECCOMP_RET_ALLOW));
  add(Load(kCapability));
  for (const int capability : capabilities) {
    add(SkipIfEqual(static_cast<unsigned>(capability), 0, 1));
    add(Return(SECCOMP_RET_ERRNO));  // "errno 0": the call returns 0 and is never made
  }
  add(Return(SECCOMP_RET_ALLOW));
  const sock_fprog program{static_cast<unsigned short>(length), code.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
}

bool RunWithoutKvmCapabilities(std::span<const int> capabilities,
                               const std::function<void()>& body) {
  bool hidden = false;
  std::thread([&] {
    hidden = HideKvmCapabilities(capabilities);
    if (hidden) body();
  }).join();
  return hidden;
}

}  // namespace holdfast::test
