// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

namespace holdfast {

/// XXH3 (64 bits, seed 0) of bytes: finds damage and tells pages apart, and is no protection
/// against somebody who wants two contents to have one hash. Thread-safety: any thread.
std::uint64_t Hash64(std::span<const std::byte> bytes) noexcept;

/// Hash64() of bytes that come in pieces. Thread-safety: one thread.
class Hasher64 {
 public:
  Hasher64();
  Hasher64(const Hasher64&) = delete;
  Hasher64& operator=(const Hasher64&) = delete;
  ~Hasher64();

  void Add(std::span<const std::byte> bytes) noexcept;
  /// Of all that was added; begins anew.
  std::uint64_t Take() noexcept;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Whether all bytes are zero; at the speed of memory. Thread-safety: any thread.
bool AllZero(std::span<const std::byte> bytes) noexcept;

}  // namespace holdfast
