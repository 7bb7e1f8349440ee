// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <holdfast/error.h>

namespace holdfast::migration {

/// QEMU's MigrationStatus, as far as it exists here.
enum class MigrationStatus : std::uint8_t {
  kNone,
  kSetup,
  kCancelling,
  kCancelled,
  kActive,
  kPostcopyDevice,
  kPostcopyActive,
  kPostcopyPaused,        ///< the connection was lost: memory waits on both sides
  kPostcopyRecoverSetup,  ///< the source connects again
  kPostcopyRecover,       ///< it is connected, and takes up what was left
  kPreSwitchover,
  kDevice,
  kCompleted,
  kFailed,
};
/// "postcopy-active".
std::string_view ToString(MigrationStatus status) noexcept;
/// Whether it is under way.
bool IsActive(MigrationStatus status) noexcept;

/// Whether migrate-pause has something to pause: post-copy that is connected, or about to be.
bool CanPause(MigrationStatus status) noexcept;
/// What it says elsewhere, in QEMU's words, and what it leaves behind.
Error NotInPostcopy();
Error PausedByUser();

/// What query-migrate tells.
struct MigrationInfo {
  MigrationStatus status = MigrationStatus::kNone;
  bool incoming = false;
  std::optional<Error> error = std::nullopt;  ///< why it failed, or is paused

  std::uint64_t total_time_ms = 0;
  std::optional<std::uint64_t> setup_time_ms = std::nullopt;
  std::optional<std::uint64_t> downtime_ms = std::nullopt;           ///< of a completed one
  std::optional<std::uint64_t> expected_downtime_ms = std::nullopt;  ///< if it ended now

  // Of the source.
  std::uint64_t ram_total = 0;          ///< bytes of guest RAM
  std::uint64_t remaining = 0;          ///< bytes of the pass under way
  std::uint64_t transferred = 0;        ///< bytes sent
  std::uint64_t normal_pages = 0;       ///< with contents
  std::uint64_t zero_pages = 0;         ///< sent as a bit
  std::uint64_t passes = 0;             ///< over memory, that are complete
  std::uint64_t dirty_rate = 0;         ///< pages a second that the guest writes
  std::uint64_t bandwidth = 0;          ///< bytes a second at which memory goes
  std::uint64_t throttle = 0;           ///< percent of the time that vCPUs rest (auto-converge)
  std::uint64_t postcopy_requests = 0;  ///< pages that a vCPU of the destination waited for
};

}  // namespace holdfast::migration
