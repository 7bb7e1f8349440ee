// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>

namespace holdfast::migration {

/// How far a job is, in bytes; and whether it shall end.
///
/// Thread-safety: any thread. `total` may still grow.
struct Progress {
  std::atomic<std::uint64_t> done = 0;
  std::atomic<std::uint64_t> total = 0;
  std::atomic<bool> cancelled = false;
};

}  // namespace holdfast::migration
