// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace holdfast::machine {

/// What becomes of a guest that has panicked; in the order of kPanicPolicyNames.
enum class PanicPolicy : std::uint8_t { kPause, kShutdown, kExitFailure, kNone };
inline constexpr std::array<std::string_view, 4> kPanicPolicyNames = {"pause", "shutdown",
                                                                      "exit-failure", "none"};

/// What a watchdog that has run out does; in the order of kWatchdogActionNames.
enum class WatchdogAction : std::uint8_t {
  kReset,
  kShutdown,  ///< press the power button
  kPoweroff,  ///< end at once
  kPause,
  kDebug,  ///< say so and go on
  kNone,
  kInjectNmi,
};
inline constexpr std::array<std::string_view, 7> kWatchdogActionNames = {
    "reset", "shutdown", "poweroff", "pause", "debug", "none", "inject-nmi"};

/// `-action` and set-action: what follows when the guest does something final.
struct Actions {
  bool no_reboot = false;    ///< reboot=shutdown
  bool no_shutdown = false;  ///< shutdown=pause
  PanicPolicy panic = PanicPolicy::kShutdown;
  WatchdogAction watchdog = WatchdogAction::kReset;
};

}  // namespace holdfast::machine
