// SPDX-License-Identifier: Apache-2.0
#include "memory/userfault.h"

#include <fcntl.h>
#include <holdfast/units.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace holdfast {
namespace {

// Of /dev/userfaultfd, Linux 6.1: who may open it may have one.
constexpr unsigned long kUserfaultfdNew = _IO(0xAA, 0x00);

uffdio_range RangeOf(std::span<std::byte> range) {
  return {.start = reinterpret_cast<std::uintptr_t>(range.data()), .len = range.size()};
}

}  // namespace

Result<UniqueFd> Userfault::Open() {
  constexpr int kFlags = O_CLOEXEC | O_NONBLOCK;
  UniqueFd fd;
  if (const UniqueFd device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC)); device)
    fd = UniqueFd(::ioctl(device.get(), kUserfaultfdNew, kFlags));
  if (!fd) fd = UniqueFd(static_cast<int>(::syscall(SYS_userfaultfd, kFlags)));
  if (!fd) {
    const int error = errno;
    return Fail(Errc::kUnsupported,
                Error::FromErrno("guest memory cannot be populated on demand (userfaultfd)", error)
                    .message(),
                "Permit this user to open /dev/userfaultfd, set the sysctl "
                "vm.unprivileged_userfaultfd to 1, or have memory populated at once.");
  }
  uffdio_api api{};
  api.api = UFFD_API;
  if (::ioctl(fd.get(), UFFDIO_API, &api) != 0) return FailErrno("UFFDIO_API");
  return fd;
}

Status Userfault::Register(std::span<std::byte> range) const {
  uffdio_register request{};
  request.range = RangeOf(range);
  request.mode = UFFDIO_REGISTER_MODE_MISSING;
  if (::ioctl(fd_.get(), UFFDIO_REGISTER, &request) != 0) return FailErrno("UFFDIO_REGISTER");
  return {};
}

Status Userfault::Unregister(std::span<std::byte> range) const {
  uffdio_range request = RangeOf(range);
  if (::ioctl(fd_.get(), UFFDIO_UNREGISTER, &request) != 0) return FailErrno("UFFDIO_UNREGISTER");
  return {};
}

Status Userfault::Wake(std::span<std::byte> range) const {
  uffdio_range request = RangeOf(range);
  if (::ioctl(fd_.get(), UFFDIO_WAKE, &request) != 0) return FailErrno("UFFDIO_WAKE");
  return {};
}

Status Userfault::Copy(std::span<std::byte> to, std::span<const std::byte> from,
                       std::uint64_t page_size) const {
  while (!to.empty()) {
    uffdio_copy request{};
    request.dst = reinterpret_cast<std::uintptr_t>(to.data());
    request.src = reinterpret_cast<std::uintptr_t>(from.data());
    request.len = to.size();
    std::uint64_t done = to.size();
    if (::ioctl(fd_.get(), UFFDIO_COPY, &request) != 0) {
      // Part of it may be done; EAGAIN also says that the mappings were changing just now.
      if (errno == EEXIST && request.copy <= 0) {
        HF_TRY_STATUS(Wake(to.first(page_size)));
        done = page_size;
      } else if (errno == EAGAIN || errno == EEXIST) {
        done = request.copy > 0 ? static_cast<std::uint64_t>(request.copy) : 0;
      } else {
        return FailErrno("UFFDIO_COPY");
      }
    }
    to = to.subspan(done);
    from = from.subspan(done);
  }
  return {};
}

std::optional<std::uint64_t> Userfault::NextFault() const {
  uffd_msg message{};
  while (true) {
    const ssize_t got = ::read(fd_.get(), &message, sizeof message);
    if (got < 0 && errno == EINTR) continue;
    if (got != static_cast<ssize_t>(sizeof message)) return std::nullopt;
    if (message.event == UFFD_EVENT_PAGEFAULT)
      return AlignDown(message.arg.pagefault.address, kPageSize);
  }
}

}  // namespace holdfast
