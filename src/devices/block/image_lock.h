// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include <holdfast/error.h>

namespace holdfast::devices::block {

/// What somebody does with an image, or lets others do meanwhile. The bits are QEMU's permissions;
/// their numbers are part of the protocol.
enum ImagePermission : std::uint8_t {
  kPermRead = 1U << 0,            ///< "consistent read"
  kPermWrite = 1U << 1,           ///< "write"
  kPermWriteUnchanged = 1U << 2,  ///< "write unchanged": rewriting what is there
  kPermResize = 1U << 3,          ///< "resize"
};

/// Locks the image behind `fd` against other processes, ours, QEMU's and its tools': an open file
/// description lock on byte 100 + n for each permission n that is used, on byte 200 + n for each
/// that others may not use. Closing the file unlocks it.
///
/// @param used    ImagePermission bits that this process uses
/// @param shared  bits that others may use
/// @return kInvalidArgument as QEMU words it, naming `filename` in the hint, if another process is
///         in the way; then nothing is locked. kUnsupported where the file system has no such locks
Status LockImage(int fd, std::uint8_t used, std::uint8_t shared, std::string_view filename);

/// Takes all locks away again.
void UnlockImage(int fd) noexcept;

}  // namespace holdfast::devices::block
