// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>

namespace holdfast::kvm {

/// Answers ioctls in the kernel's place: for what no machine at hand has (in-place conversion
/// before Linux 7.4, SEV-SNP firmware, TDX). Every ioctl of this program but KVM_RUN passes it, in
/// the kernel's own numbers and layouts, so that what is tested is what the kernel would be told.
///
/// Thread-safety: Ioctl() may be called by any thread at any time.
class IoctlHandler {
 public:
  virtual ~IoctlHandler() = default;
  /// `argument` is what the third argument of ioctl() is, pointer or number.
  /// @return the result, or a negative errno; nothing: ask the kernel
  virtual std::optional<int> Ioctl(int fd, unsigned long number, unsigned long argument) = 0;
};

/// Puts `handler` (null: none, as at the start) before the kernel. For tests; the caller keeps it
/// alive until it has put the one before back. @return the one before
IoctlHandler* SetIoctlHandler(IoctlHandler* handler) noexcept;

namespace internal {
/// ioctl() through the handler, if there is one: -1 and errno on failure.
int Ioctl(int fd, unsigned long number, unsigned long argument) noexcept;
}  // namespace internal

}  // namespace holdfast::kvm
