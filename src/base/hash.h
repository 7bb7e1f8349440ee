// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace holdfast {

/// XXH3 (64 bits, seed 0) of bytes: finds damage and tells pages apart, and is no protection
/// against somebody who wants two contents to have one hash. Thread-safety: any thread.
std::uint64_t Hash64(std::span<const std::byte> bytes) noexcept;

/// Whether all bytes are zero; at the speed of memory. Thread-safety: any thread.
bool AllZero(std::span<const std::byte> bytes) noexcept;

}  // namespace holdfast
