// SPDX-License-Identifier: Apache-2.0
#include "apps/copy_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <memory>

#include <holdfast/unique_fd.h>

namespace holdfast::apps {
namespace {

constexpr std::size_t kBufferSize = 1 << 20;

Status WriteAt(int fd, const std::byte* data, std::size_t size, off_t at) {
  while (size > 0) {
    const ssize_t written = ::pwrite(fd, data, size, at);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return FailErrno("write");
    data += written;
    size -= static_cast<std::size_t>(written);
    at += written;
  }
  return {};
}

// [at, end), which has data; a file that has become shorter ends earlier.
Status CopyRange(int from, int to, off_t at, off_t end, std::byte* buffer) {
  while (at < end) {
    // In the kernel where both file systems let it.
    loff_t in = at;
    loff_t out = at;
    const ssize_t moved =
        ::copy_file_range(from, &in, to, &out, static_cast<std::size_t>(end - at), 0);
    if (moved > 0) {
      at += moved;
      continue;
    }
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0 && errno == ENOSPC) return FailErrno("write");
    const auto wanted = std::min<std::size_t>(kBufferSize, static_cast<std::size_t>(end - at));
    const ssize_t got = ::pread(from, buffer, wanted, at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FailErrno("read");
    if (got == 0) return {};
    HF_TRY_STATUS(WriteAt(to, buffer, static_cast<std::size_t>(got), at));
    at += got;
  }
  return {};
}

Status CopyData(int from, int to, off_t size) {
  if (::ioctl(to, FICLONE, from) == 0) return {};
  if (::ftruncate(to, size) != 0) return FailErrno("resize");
  const auto buffer = std::make_unique<std::byte[]>(kBufferSize);
  off_t at = 0;
  while (at < size) {
    const off_t begin = ::lseek(from, at, SEEK_DATA);
    if (begin < 0 && errno == ENXIO) return {};  // nothing but a hole
    if (begin < 0) return CopyRange(from, to, at, size, buffer.get());
    off_t end = ::lseek(from, begin, SEEK_HOLE);
    if (end < 0) end = size;
    HF_TRY_STATUS(CopyRange(from, to, begin, std::min(end, size), buffer.get()));
    at = end;
  }
  return {};
}

}  // namespace

Status CopyFile(const std::string& from, const std::string& to) {
  const auto failed = [&](Error error) {
    return Fail(std::move(error).Wrap(fmt::format("cannot copy '{}' to '{}'", from, to)));
  };
  // Not blocking: it might be a pipe that nobody writes to.
  const UniqueFd source(::open(from.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!source) return failed(Error::FromErrno("open", errno));
  struct stat info{};
  if (::fstat(source.get(), &info) != 0) return failed(Error::FromErrno("stat", errno));
  if (!S_ISREG(info.st_mode)) {
    return failed(Error(Errc::kInvalidArgument, "it is no ordinary file")
                      .WithHint("Give each its own with %n in that option behind --."));
  }
  const UniqueFd target(
      ::open(to.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600 | (info.st_mode & 0066)));
  if (!target) return failed(Error::FromErrno("create", errno));
  if (Status copied = CopyData(source.get(), target.get(), info.st_size); !copied) {
    ::unlink(to.c_str());
    return failed(std::move(copied).error());
  }
  return {};
}

}  // namespace holdfast::apps
