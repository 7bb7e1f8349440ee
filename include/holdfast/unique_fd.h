// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <utility>

#include <holdfast/error.h>

namespace holdfast {

/// Owns a file descriptor; closes it once. -1 means none.
class UniqueFd {
 public:
  UniqueFd() noexcept = default;
  /// Takes ownership of `fd`.
  explicit UniqueFd(int fd) noexcept : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  int get() const noexcept { return fd_; }
  bool valid() const noexcept { return fd_ >= 0; }
  explicit operator bool() const noexcept { return valid(); }
  /// Gives the descriptor away; the caller closes it.
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
  /// Closes what is held (never retried: Linux frees the number even on EINTR) and takes `fd`.
  void reset(int fd = -1) noexcept;
  /// A second descriptor of the same open file, close-on-exec.
  Result<UniqueFd> Duplicate() const;

 private:
  int fd_ = -1;
};

}  // namespace holdfast
