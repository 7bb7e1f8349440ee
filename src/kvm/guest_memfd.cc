// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <holdfast/guest_memfd.h>
#include <holdfast/units.h>
#include <holdfast/vm.h>

#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>

#include "kvm/ioctl.h"

namespace holdfast::kvm {
namespace {

constexpr const char* kNeedsGuestMemfd =
    "It needs Linux 6.8 or later with CONFIG_KVM_GUEST_MEMFD; `holdfastctl probe` shows what this "
    "host offers.";
constexpr const char* kNeedsSharedGuestMemfd =
    "It needs Linux 6.18 or later (KVM_CAP_GUEST_MEMFD_FLAGS with MMAP and INIT_SHARED); "
    "`holdfastctl probe` shows what this host offers.";

Status CheckSupport(const Vm& vm, std::uint64_t flags) {
  if (vm.CheckExtension(abi::kCapGuestMemfd) <= 0) {
    return Fail(Errc::kUnsupported, "KVM does not support guest_memfd", kNeedsGuestMemfd);
  }
  // The number alone proves nothing (vendor kernels reuse capability numbers), but a kernel that
  // does not claim the flags would only answer the ioctl with a bare EINVAL.
  const auto supported = static_cast<std::uint64_t>(
      static_cast<unsigned>(vm.CheckExtension(abi::kCapGuestMemfdFlags)));
  if ((flags & ~supported) != 0) {
    return Fail(Errc::kUnsupported, "KVM does not support using guest_memfd for shared memory",
                kNeedsSharedGuestMemfd);
  }
  return {};
}

}  // namespace

Result<GuestMemfd> GuestMemfd::Create(const Vm& vm, std::uint64_t size, Access access) {
  // The kernel's limit is a signed 64-bit file size.
  if (size == 0 || !IsPageAligned(size) || size > static_cast<std::uint64_t>(INT64_MAX)) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("guest_memfd size {:#x} is not a non-zero multiple of {}", size,
                            FormatSize(kPageSize)));
  }
  abi::CreateGuestMemfd request{};
  request.size = size;
  if (access == Access::kHostShared)
    request.flags = abi::kGuestMemfdFlagMmap | abi::kGuestMemfdFlagInitShared;
  HF_TRY_STATUS(CheckSupport(vm, request.flags));

  auto fd = Call(vm.fd(), kCreateGuestMemfd, request);
  if (!fd) {
    return Fail(
        std::move(fd).error().Wrap(fmt::format("creating a guest_memfd of {}", FormatSize(size))));
  }
  GuestMemfd memfd(UniqueFd(*fd), size);
  // The kernel does not set close-on-exec on it (seen on 6.18 and 7.3).
  if (::fcntl(memfd.fd(), F_SETFD, FD_CLOEXEC) < 0)
    return FailErrno("setting close-on-exec on a guest_memfd");
  return memfd;
}

// A file of the kernel's anonymous inode up to Linux 6.18, which only its name tells apart, and of
// a file system of its own later.
bool GuestMemfd::Is(int fd) noexcept {
  constexpr unsigned long kMagic = 0x474d454d;  // GUEST_MEMFD_MAGIC, "GMEM"
  constexpr std::string_view kName = "[kvm-gmem]";
  struct statfs system = {};
  if (::fstatfs(fd, &system) == 0 && static_cast<unsigned long>(system.f_type) == kMagic) {
    return true;
  }
  std::array<char, 64> path{};
  std::array<char, 64> target{};
  *fmt::format_to_n(path.data(), path.size() - 1, "/proc/self/fd/{}", fd).out = '\0';
  const ssize_t length = ::readlink(path.data(), target.data(), target.size());
  return length > 0 &&
         std::string_view(target.data(), static_cast<std::size_t>(length)).find(kName) !=
             std::string_view::npos;
}

Result<GuestMemfd> GuestMemfd::Adopt(UniqueFd fd, std::uint64_t size) {
  struct stat status = {};
  if (!Is(fd.get()) || ::fstat(fd.get(), &status) != 0) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("file descriptor {} is no guest_memfd", fd.get()));
  }
  if (static_cast<std::uint64_t>(status.st_size) != size) {
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("the guest_memfd has {}, not {}",
                    FormatSize(static_cast<std::uint64_t>(status.st_size)), FormatSize(size)));
  }
  if (::fcntl(fd.get(), F_SETFD, FD_CLOEXEC) < 0)
    return FailErrno("setting close-on-exec on a guest_memfd");
  return GuestMemfd(std::move(fd), size);
}

Status GuestMemfd::Allocate(std::uint64_t offset, std::uint64_t length) const {
  if (::fallocate(fd_.get(), FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                  static_cast<off_t>(length)) < 0) {
    return FailErrno(fmt::format("allocating {} of guest memory", FormatSize(length)));
  }
  return {};
}

Status GuestMemfd::PunchHole(std::uint64_t offset, std::uint64_t length) const {
  if (::fallocate(fd_.get(), FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, static_cast<off_t>(offset),
                  static_cast<off_t>(length)) < 0) {
    return FailErrno(fmt::format("freeing {} of guest memory", FormatSize(length)));
  }
  return {};
}

Result<GuestMemfd::AttributesAnswer> GuestMemfd::SetAttributes(std::uint64_t offset,
                                                               std::uint64_t length,
                                                               std::uint64_t attributes) const {
  abi::MemoryAttributes2 request{};
  request.offset = offset;
  request.size = length;
  request.attributes = attributes;
  const auto answer = Call(fd_.get(), kSetMemoryAttributes2, request);
  if (answer) return AttributesAnswer{};
  if (answer.error().os_errno() == EAGAIN) {
    // The kernel promises a page of the range; nobody else may rely on more than that.
    const std::uint64_t last = offset + length - kPageSize;
    return AttributesAnswer{std::clamp(request.error_offset, offset, last)};
  }
  return Fail(answer.error());
}

}  // namespace holdfast::kvm
