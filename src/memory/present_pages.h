// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

#include <holdfast/error.h>

namespace holdfast {

class RamBlock;

/// Calls `fn(offset, size)`, in order, for the parts of [offset, offset + size) of a block that may
/// hold something; the rest reads as zeroes and has no memory, and reading it would give it some.
/// Swapped-out pages count as present. Where the host cannot tell, everything does.
/// @param fn  false ends the walk
/// @return the failed system call
/// Thread-safety: any thread. A page that is written meanwhile may be told of or not.
Status ForEachPresent(const RamBlock& block, std::uint64_t offset, std::uint64_t size,
                      const std::function<bool(std::uint64_t offset, std::uint64_t size)>& fn);

}  // namespace holdfast
