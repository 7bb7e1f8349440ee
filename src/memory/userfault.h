// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

namespace holdfast {

/// A userfaultfd: memory whose missing pages somebody else is asked for. Linux 4.11 and later,
/// Documentation/admin-guide/mm/userfaultfd.rst.
///
/// Thread-safety: all functions on any thread.
class Userfault {
 public:
  /// Opens one that does not block and takes faults of the kernel, KVM's, too.
  static Result<UniqueFd> Open();

  explicit Userfault(UniqueFd fd) : fd_(std::move(fd)) {}
  int fd() const noexcept { return fd_.get(); }

  /// Missing pages of the range are reported from now on. @return the failed ioctl: EINVAL for
  /// memory of which the kernel cannot do it
  Status Register(std::span<std::byte> range) const;
  /// No longer; who waits goes on.
  Status Unregister(std::span<std::byte> range) const;
  /// Who waits for a page of the range looks again.
  Status Wake(std::span<std::byte> range) const;
  /// Fills a range with `from`, of the same size, and wakes who waits for it; pages that are there
  /// already are left as they are. Both are multiples of `page_size`.
  Status Copy(std::span<std::byte> to, std::span<const std::byte> from,
              std::uint64_t page_size) const;
  /// The address of a fault, rounded down to its page; empty if there is none (left).
  std::optional<std::uint64_t> NextFault() const;

 private:
  UniqueFd fd_;
};

}  // namespace holdfast
