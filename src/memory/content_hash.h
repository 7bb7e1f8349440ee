// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <holdfast/units.h>

namespace holdfast {

/// A hash of a page's contents: XXH3 with 128 bits. All zeroes: the page is.
struct ContentHash {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  friend bool operator==(const ContentHash&, const ContentHash&) = default;
};

/// Of one page. `seed` keeps a guest from preparing pages of the same hash. The guest may write the
/// page meanwhile: the hash then is of no state that it ever had.
ContentHash HashPage(std::span<const std::byte, kPageSize> page, std::uint64_t seed) noexcept;

}  // namespace holdfast
