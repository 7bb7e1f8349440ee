// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

namespace holdfast::machine {

/// Why a machine was reset or ended; QEMU's ShutdownCause, as far as it happens here.
enum class ShutdownCause : std::uint8_t {
  kHostError,           ///< KVM could not go on
  kHostQmpQuit,         ///< `quit` in either monitor, Ctrl-a x on the console
  kHostQmpSystemReset,  ///< `system_reset`
  kHostSignal,          ///< SIGTERM and the like
  kGuestShutdown,       ///< the guest powered itself off
  kGuestReset,          ///< the guest asked for a reset, or a CPU of it triple-faulted
  kGuestPanic,
};

/// "guest-shutdown" and so on: what the control protocol calls it.
constexpr std::string_view ShutdownCauseName(ShutdownCause cause) noexcept {
  switch (cause) {
    case ShutdownCause::kHostError:
      return "host-error";
    case ShutdownCause::kHostQmpQuit:
      return "host-qmp-quit";
    case ShutdownCause::kHostQmpSystemReset:
      return "host-qmp-system-reset";
    case ShutdownCause::kHostSignal:
      return "host-signal";
    case ShutdownCause::kGuestShutdown:
      return "guest-shutdown";
    case ShutdownCause::kGuestReset:
      return "guest-reset";
    case ShutdownCause::kGuestPanic:
      return "guest-panic";
  }
  return "none";
}

/// Whether it was the guest's own doing.
constexpr bool CausedByGuest(ShutdownCause cause) noexcept {
  return cause >= ShutdownCause::kGuestShutdown;
}

}  // namespace holdfast::machine
