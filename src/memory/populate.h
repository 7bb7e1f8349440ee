// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include <holdfast/error.h>
#include <holdfast/numa_policy.h>

namespace holdfast {

/// How memory is allocated before anyone uses it.
struct PopulateOptions {
  unsigned threads = 1;            ///< that work at the same time; at least one
  std::uint64_t page_size = 4096;  ///< of the memory: a step is a multiple of it
  NumaPolicy thread_policy = {};   ///< that the threads allocate by
  bool write = true;               ///< false: a mapping that may only be read
  /// Called about ten times a second with the bytes done, on the calling thread; false gives up.
  std::function<bool(std::uint64_t done)> progress = {};
};

/// Allocates and maps all pages of a page-aligned mapping (MADV_POPULATE_WRITE). Contents stay.
/// @return the first failed system call; kSystem with EINTR ("interrupted") when `progress` said
///         so. What was allocated until then stays: the caller lets the memory go.
Status Populate(std::span<std::byte> mapping, const PopulateOptions& options);

}  // namespace holdfast
