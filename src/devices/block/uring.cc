// SPDX-License-Identifier: Apache-2.0
#include "devices/block/uring.h"

#include <liburing.h>

namespace holdfast::devices {

void UringDeleter::operator()(io_uring* ring) const noexcept {
  io_uring_queue_exit(ring);
  const std::unique_ptr<io_uring> memory(ring);
}

Result<UniqueUring> MakeUring(unsigned entries, unsigned flags) {
  auto ring = std::make_unique<io_uring>();
  io_uring_params params = {};
  params.flags = IORING_SETUP_CLAMP | flags;
  const int result = io_uring_queue_init_params(entries, ring.get(), &params);
  if (result < 0) return Fail(Error::FromErrno("io_uring is not available", -result));
  return UniqueUring(ring.release());
}

}  // namespace holdfast::devices
