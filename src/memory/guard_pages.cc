// SPDX-License-Identifier: Apache-2.0
#include "memory/guard_pages.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>

namespace holdfast {
namespace {

// include/uapi/asm-generic/mman-common.h, Linux 6.13; the distribution's headers are older.
constexpr int kMadvGuardInstall = 102;
constexpr int kMadvGuardRemove = 103;

}  // namespace

Status SetGuardPages(std::span<std::byte> pages, bool closed) {
  while (::madvise(pages.data(), pages.size(), closed ? kMadvGuardInstall : kMadvGuardRemove) !=
         0) {
    if (errno == EINTR || errno == EAGAIN) continue;  // half-way: both are idempotent
    if (errno == EINVAL) {
      return Fail(Errc::kUnsupported, "the kernel refuses guard pages in a mapping of guest memory",
                  "They need Linux 6.15 or later, and memory that is not locked (mlock).");
    }
    return FailErrno(fmt::format("{} {:#x} bytes of guest memory to the host",
                                 closed ? "closing" : "opening", pages.size()));
  }
  return {};
}

}  // namespace holdfast
