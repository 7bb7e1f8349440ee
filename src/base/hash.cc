// SPDX-License-Identifier: Apache-2.0
#include "base/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstring>

namespace holdfast {

std::uint64_t Hash64(std::span<const std::byte> bytes) noexcept {
  return XXH3_64bits(bytes.data(), bytes.size());
}

struct Hasher64::State {
  XXH3_state_t state;
};

Hasher64::Hasher64() : state_(std::make_unique<State>()) {
  XXH3_64bits_reset(&state_->state);
}
Hasher64::~Hasher64() = default;

void Hasher64::Add(std::span<const std::byte> bytes) noexcept {
  XXH3_64bits_update(&state_->state, bytes.data(), bytes.size());
}

std::uint64_t Hasher64::Take() noexcept {
  const std::uint64_t hash = XXH3_64bits_digest(&state_->state);
  XXH3_64bits_reset(&state_->state);
  return hash;
}

bool AllZero(std::span<const std::byte> bytes) noexcept {
  // Most pages that hold something say so in their first bytes; else what follows is compared
  // with itself, shifted by those that are known to be zero.
  constexpr std::size_t kHead = 16;
  const std::size_t head = bytes.size() < kHead ? bytes.size() : kHead;
  for (std::size_t i = 0; i < head; ++i) {
    if (bytes[i] != std::byte{0}) return false;
  }
  if (bytes.size() <= kHead) return true;
  return std::memcmp(bytes.data(), bytes.data() + kHead, bytes.size() - kHead) == 0;
}

}  // namespace holdfast
