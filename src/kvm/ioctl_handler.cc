// SPDX-License-Identifier: Apache-2.0
#include "kvm/ioctl_handler.h"

#include <sys/ioctl.h>

#include <atomic>
#include <cerrno>

namespace holdfast::kvm {
namespace {

// Whoever sets it sees to it that no ioctl of theirs is under way meanwhile.
std::atomic<IoctlHandler*> g_handler{nullptr};

}  // namespace

IoctlHandler* SetIoctlHandler(IoctlHandler* handler) noexcept {
  return g_handler.exchange(handler);
}

namespace internal {

int Ioctl(int fd, unsigned long number, unsigned long argument) noexcept {
  if (IoctlHandler* const handler = g_handler.load(std::memory_order_acquire)) {
    if (const std::optional<int> answer = handler->Ioctl(fd, number, argument)) {
      if (*answer >= 0) return *answer;
      errno = -*answer;
      return -1;
    }
  }
  return ::ioctl(fd, number, argument);
}

}  // namespace internal
}  // namespace holdfast::kvm
