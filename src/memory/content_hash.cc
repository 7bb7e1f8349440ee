// SPDX-License-Identifier: Apache-2.0
#include "memory/content_hash.h"

// The library's code becomes part of this file: nothing to link or to depend on when installed.
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/hash.h"

namespace holdfast {

ContentHash HashPage(std::span<const std::byte, kPageSize> page, std::uint64_t seed) noexcept {
  if (AllZero(page)) return {};
  const XXH128_hash_t hash = XXH3_128bits_withSeed(page.data(), page.size(), seed);
  // A page that is not zero never counts as one that is.
  return {.low = hash.low64 == 0 && hash.high64 == 0 ? 1 : hash.low64, .high = hash.high64};
}

}  // namespace holdfast
