// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/units.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "conformance/engine_subject.h"

/// The operations of EngineOps() by number, for both sides of the comparison.
namespace holdfast::conformance::engine_ops {

enum Kind : std::uint8_t {
  kConvert,     ///< page, count, private, what is wrong
  kPin,         ///< pin, page, count
  kUnpin,       ///< pin
  kDiscard,     ///< page, count
  kBusy,        ///< page: in use by the kernel's account
  kIdle,        ///< page
  kRead,        ///< page: the host, which asks first
  kWrite,       ///< page, value
  kPeek,        ///< page: the host, which does not ask
  kGuestRead,   ///< page: as the guest sees it, private or not
  kGuestWrite,  ///< page, value
};

// What may be wrong with a request.
inline constexpr std::uint8_t kOddFlags = 7;
inline constexpr std::uint8_t kOddReserved = 8;
inline constexpr std::uint8_t kOddOffset = 9;
inline constexpr std::uint8_t kOddSize = 10;
inline constexpr std::uint8_t kOddKinds = 11;

inline constexpr std::uint8_t kMostBusy = 3;

inline std::uint64_t Offset(const Op& op, std::size_t argument) {
  return op.arguments.at(argument) * kPageSize;
}

/// First page and count of the arguments from `argument` on, cut off at the block's end; nothing:
/// there is none.
inline std::optional<std::pair<std::uint64_t, std::uint64_t>> PagesOf(const Op& op,
                                                                      std::size_t argument) {
  const std::uint64_t first = op.arguments.at(argument);
  if (first >= kEnginePages) return std::nullopt;
  const std::uint64_t count =
      std::min<std::uint64_t>(op.arguments.at(argument + 1), kEnginePages - first);
  if (count == 0) return std::nullopt;
  return std::pair(first, count);
}

}  // namespace holdfast::conformance::engine_ops
