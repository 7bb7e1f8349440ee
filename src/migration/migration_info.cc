// SPDX-License-Identifier: Apache-2.0
#include "migration/migration_info.h"

namespace holdfast::migration {

std::string_view ToString(MigrationStatus status) noexcept {
  switch (status) {
    case MigrationStatus::kNone:
      return "none";
    case MigrationStatus::kSetup:
      return "setup";
    case MigrationStatus::kCancelling:
      return "cancelling";
    case MigrationStatus::kCancelled:
      return "cancelled";
    case MigrationStatus::kActive:
      return "active";
    case MigrationStatus::kPostcopyDevice:
      return "postcopy-device";
    case MigrationStatus::kPostcopyActive:
      return "postcopy-active";
    case MigrationStatus::kPostcopyPaused:
      return "postcopy-paused";
    case MigrationStatus::kPostcopyRecoverSetup:
      return "postcopy-recover-setup";
    case MigrationStatus::kPostcopyRecover:
      return "postcopy-recover";
    case MigrationStatus::kPreSwitchover:
      return "pre-switchover";
    case MigrationStatus::kDevice:
      return "device";
    case MigrationStatus::kCompleted:
      return "completed";
    case MigrationStatus::kFailed:
      return "failed";
  }
  return "?";
}

bool IsActive(MigrationStatus status) noexcept {
  switch (status) {
    case MigrationStatus::kNone:
    case MigrationStatus::kCancelled:
    case MigrationStatus::kCompleted:
    case MigrationStatus::kFailed:
      return false;
    default:
      return true;
  }
}

bool CanPause(MigrationStatus status) noexcept {
  return status == MigrationStatus::kPostcopyActive ||
         status == MigrationStatus::kPostcopyRecoverSetup ||
         status == MigrationStatus::kPostcopyRecover;
}

Error NotInPostcopy() {
  return {Errc::kInvalidArgument,
          "migrate-pause is currently only supported during postcopy-active or postcopy-recover "
          "state"};
}

Error PausedByUser() {
  return {Errc::kSystem, "it was paused with migrate-pause"};
}

}  // namespace holdfast::migration
