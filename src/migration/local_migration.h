// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <holdfast/error.h>

#include "migration/cpr_transfer.h"
#include "migration/main_thread.h"
#include "migration/migration_info.h"
#include "migration/save_job.h"

namespace holdfast::migration {

/// A machine that leaves without a connection to a peer that asks for pages: into a file, to
/// another monitor of this host that gets its memory as descriptors, or to the program that this
/// process becomes. Whatever fails, the guest goes on here.
///
/// Thread-safety: the main thread.
class LocalMigration {
 public:
  struct Events {
    std::function<void(MigrationStatus status)> status;  ///< a change
    /// It is over; may destroy the object.
    std::function<void(const Status& status)> done;
  };

  /// Into a file that `-incoming file:` reads, a snapshot. The guest stands afterwards, and its
  /// disks are free. @return what is wrong with the request, with nothing changed
  static Result<std::unique_ptr<LocalMigration>> ToFile(const Subject& subject, SaveRequest request,
                                                        SnapshotDirectory about, Events events);
  /// `mode=cpr-transfer`, to the monitor that waits on a Unix socket. @return as above
  static Result<std::unique_ptr<LocalMigration>> ToMonitor(const Subject& subject,
                                                           const std::string& path, Events events);
  /// `mode=cpr-exec`: `done` comes only if it fails. @return as above
  static Result<std::unique_ptr<LocalMigration>> ToProgram(const Subject& subject,
                                                           std::vector<std::string> command,
                                                           Events events);
  LocalMigration(const LocalMigration&) = delete;
  LocalMigration& operator=(const LocalMigration&) = delete;

  /// Soon `done` comes with an error. @return kInvalidArgument once it cannot be taken back
  Status Cancel();
  MigrationInfo info() const;

 private:
  using Clock = std::chrono::steady_clock;

  LocalMigration(const Subject& subject, Events events);
  void SetStatus(MigrationStatus status);
  // The file is written.
  Status Leave();
  void Ended(Status status);

  const Subject subject_;
  const Events events_;
  const Clock::time_point started_ = Clock::now();
  MainThread main_;
  MigrationInfo info_{.status = MigrationStatus::kSetup};
  bool cancelled_ = false;
  // One of them, or with cpr-exec none.
  std::unique_ptr<SaveJob> save_;
  std::unique_ptr<CprTransfer> transfer_;
};

}  // namespace holdfast::migration
