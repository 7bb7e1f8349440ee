// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>

namespace holdfast::migration {

// How long either side of a migration waits for the other.
inline constexpr std::chrono::seconds kGreeting{10};     ///< for the first bytes of a connection
inline constexpr std::chrono::seconds kStall{30};        ///< for a byte, when some are due
inline constexpr std::chrono::seconds kPatience{60};     ///< for its next step
inline constexpr std::chrono::hours kNoLimit{24 * 365};  ///< for what takes as long as it takes

}  // namespace holdfast::migration
