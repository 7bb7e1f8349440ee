// SPDX-License-Identifier: Apache-2.0
#include "devices/block/image_lock.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <array>
#include <cerrno>

namespace holdfast::devices::block {
namespace {

constexpr int kUsedBase = 100;
constexpr int kUnsharedBase = 200;
constexpr std::array<std::string_view, 4> kNames = {"consistent read", "write", "write unchanged",
                                                    "resize"};

struct flock OneByte(int type, int byte) {
  struct flock lock = {};
  lock.l_type = static_cast<short>(type);
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

// 0, or the errno.
int Lock(int fd, int type, int byte) {
  struct flock lock = OneByte(type, byte);
  while (::fcntl(fd, F_OFD_SETLK, &lock) != 0) {
    if (errno != EINTR) return errno;
  }
  return 0;
}

// Whether another open file holds a lock on the byte.
bool Held(int fd, int byte) {
  struct flock lock = OneByte(F_WRLCK, byte);
  return ::fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

Error InUse(std::string_view shared, std::string_view name, std::string_view filename) {
  return Error(Errc::kInvalidArgument, fmt::format("Failed to get {}\"{}\" lock", shared, name),
               fmt::format("Is another process using the image [{}]?", filename));
}

}  // namespace

void UnlockImage(int fd) noexcept {
  for (std::size_t bit = 0; bit < kNames.size(); ++bit) {
    Lock(fd, F_UNLCK, kUsedBase + static_cast<int>(bit));
    Lock(fd, F_UNLCK, kUnsharedBase + static_cast<int>(bit));
  }
}

// First all locks, then a look at what they must not meet: of two processes that start at once at
// least one sees the other.
Status LockImage(int fd, std::uint8_t used, std::uint8_t shared, std::string_view filename) {
  for (std::size_t bit = 0; bit < kNames.size(); ++bit) {
    const auto permission = static_cast<std::uint8_t>(1U << bit);
    int error = 0;
    if ((used & permission) != 0) {
      error = Lock(fd, F_RDLCK, kUsedBase + static_cast<int>(bit));
    }
    if (error == 0 && (shared & permission) == 0) {
      error = Lock(fd, F_RDLCK, kUnsharedBase + static_cast<int>(bit));
    }
    if (error == 0) continue;
    UnlockImage(fd);
    if (error == EAGAIN || error == EACCES) return Fail(InUse("", kNames[bit], filename));
    return Fail(Errc::kUnsupported,
                fmt::format("the file system of '{}' has no locks: {}", filename,
                            Error::FromErrno("fcntl", error).message()),
                "Add file.locking=off if nobody else uses the image.");
  }
  for (std::size_t bit = 0; bit < kNames.size(); ++bit) {
    const auto permission = static_cast<std::uint8_t>(1U << bit);
    if ((used & permission) != 0 && Held(fd, kUnsharedBase + static_cast<int>(bit))) {
      UnlockImage(fd);
      return Fail(InUse("", kNames[bit], filename));
    }
    if ((shared & permission) == 0 && Held(fd, kUsedBase + static_cast<int>(bit))) {
      UnlockImage(fd);
      return Fail(InUse("shared ", kNames[bit], filename));
    }
  }
  return {};
}

}  // namespace holdfast::devices::block
