// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>

namespace holdfast {

/// A guest physical address. A type of its own, so that it is never mistaken for a host address
/// or an offset into a guest_memfd.
class GuestAddress {
 public:
  constexpr GuestAddress() noexcept = default;
  constexpr explicit GuestAddress(std::uint64_t value) noexcept : value_(value) {}
  constexpr std::uint64_t value() const noexcept { return value_; }
  constexpr auto operator<=>(const GuestAddress&) const noexcept = default;
  /// The address `offset` bytes up. Wraps like the integer does; check lengths before.
  constexpr GuestAddress operator+(std::uint64_t offset) const noexcept {
    return GuestAddress(value_ + offset);
  }

 private:
  std::uint64_t value_ = 0;
};

}  // namespace holdfast
