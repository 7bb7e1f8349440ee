// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace holdfast {

inline constexpr std::uint64_t kKiB = 1024;
inline constexpr std::uint64_t kMiB = 1024 * kKiB;
inline constexpr std::uint64_t kGiB = 1024 * kMiB;
inline constexpr std::uint64_t kTiB = 1024 * kGiB;
/// The base page: guest_memfd's folios and KVM's memslots are multiples of it on x86.
inline constexpr std::uint64_t kPageSize = 4096;

constexpr bool IsPageAligned(std::uint64_t value) noexcept {
  return value % kPageSize == 0;
}
/// Rounds down / up to a multiple of the power of two `alignment`. The caller has made sure that
/// rounding up does not wrap.
constexpr std::uint64_t AlignDown(std::uint64_t value, std::uint64_t alignment) noexcept {
  return value & ~(alignment - 1);
}
constexpr std::uint64_t AlignUp(std::uint64_t value, std::uint64_t alignment) noexcept {
  return AlignDown(value + alignment - 1, alignment);
}

/// Sum and product that say when they wrap.
constexpr std::optional<std::uint64_t> CheckedAdd(std::uint64_t a, std::uint64_t b) noexcept {
  std::uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}
constexpr std::optional<std::uint64_t> CheckedMul(std::uint64_t a, std::uint64_t b) noexcept {
  std::uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}
/// Whether [offset, offset + length) lies inside [0, limit).
constexpr bool RangeFits(std::uint64_t offset, std::uint64_t length, std::uint64_t limit) noexcept {
  return offset <= limit && length <= limit - offset;
}

/// Parses QEMU's size syntax: a decimal or 0x number, optionally with a fraction, and a suffix
/// b, k, M, G, T, P or E (either case). A number without suffix is multiplied by `default_unit`.
/// Empty if `text` is not such a size or does not fit 64 bits.
std::optional<std::uint64_t> ParseSize(std::string_view text, std::uint64_t default_unit = 1);

/// "4 KiB", "1.5 GiB": exact where possible, otherwise with three significant digits.
std::string FormatSize(std::uint64_t bytes);

}  // namespace holdfast
