// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include <holdfast/error.h>

struct io_uring;

namespace holdfast::devices {

struct UringDeleter {
  void operator()(io_uring* ring) const noexcept;
};
/// A ring that is set up. Whoever lets go of it has waited for all that it was given: the kernel
/// writes to where a request said until then.
using UniqueUring = std::unique_ptr<io_uring, UringDeleter>;

/// @param entries  submissions that fit in, rounded up by the kernel and cut to what it can
/// @param flags  IORING_SETUP_… (io_uring_setup(2))
/// @return kUnsupported or kPermission where the kernel offers no io_uring, or none with `flags`
Result<UniqueUring> MakeUring(unsigned entries, unsigned flags = 0);

}  // namespace holdfast::devices
