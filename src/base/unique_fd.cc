// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <holdfast/unique_fd.h>
#include <unistd.h>

namespace holdfast {

void UniqueFd::reset(int fd) noexcept {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Result<UniqueFd> UniqueFd::Duplicate() const {
  const int fd = ::fcntl(fd_, F_DUPFD_CLOEXEC, 0);
  if (fd < 0) return FailErrno("duplicating a file descriptor");
  return UniqueFd(fd);
}

}  // namespace holdfast
