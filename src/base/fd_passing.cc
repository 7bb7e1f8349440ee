// SPDX-License-Identifier: Apache-2.0
#include "base/fd_passing.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace holdfast {
namespace {

constexpr std::size_t kControlSize = CMSG_SPACE(kMostPassedFds * sizeof(int));

}  // namespace

ssize_t SendWithFds(int socket, std::span<const std::byte> data, std::span<const int> fds,
                    int flags) {
  if (fds.size() > kMostPassedFds) {
    errno = EINVAL;
    return -1;
  }
  // The kernel only reads.
  iovec piece{.iov_base = const_cast<std::byte*>(data.data()), .iov_len = data.size()};
  alignas(cmsghdr) std::array<std::byte, kControlSize> control{};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* const rights = CMSG_FIRSTHDR(&message);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(rights), fds.data(), fds.size_bytes());
  }
  return ::sendmsg(socket, &message, flags);
}

WithFds ReceiveWithFds(int socket, std::span<std::byte> into, std::size_t most_fds, int flags) {
  iovec piece{.iov_base = into.data(), .iov_len = into.size()};
  alignas(cmsghdr) std::array<std::byte, kControlSize> control{};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  // Padding left out, which the kernel would use for one more.
  message.msg_controllen =
      CMSG_LEN(std::clamp<std::size_t>(most_fds, 1, kMostPassedFds) * sizeof(int));
  WithFds got;
  got.size = ::recvmsg(socket, &message, flags | MSG_CMSG_CLOEXEC);
  if (got.size < 0) return got;
  for (const cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, const_cast<cmsghdr*>(part))) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
      got.fds.emplace_back(fd);
    }
  }
  got.more_fds = (message.msg_flags & MSG_CTRUNC) != 0;
  return got;
}

}  // namespace holdfast
