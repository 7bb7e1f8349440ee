// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>

#include "migration/address.h"
#include "migration/connection.h"
#include "migration/incoming.h"
#include "migration/local_migration.h"
#include "migration/migration_info.h"
#include "migration/outgoing.h"
#include "migration/save_job.h"
#include "migration/settings.h"

namespace holdfast::migration {

/// The migrations of a virtual machine: at most one at a time, in or out.
///
/// Thread-safety: the main thread.
class Migration {
 public:
  struct About {
    std::string creator;                    ///< "holdfast 0.1.0"
    std::string name;                       ///< of the virtual machine
    std::string uuid;                       ///< -uuid, perhaps empty
    std::vector<std::string> command_line;  ///< of the monitor, without its own name
  };
  struct Hooks {
    std::function<void(MigrationStatus status)> status_changed = {};
    std::function<void(std::uint64_t pass)> pass = {};
    /// The keys of a `tls-creds-…` object, for a server or a client. @return kNotFound …
    std::function<Result<std::shared_ptr<const object::TlsContext>>(const std::string& id,
                                                                    bool server)>
        tls = {};
    AddressServices services = {};
    /// The job that has the machine: "s0". Empty: none.
    std::function<std::string()> busy = {};
    /// The guest has come; it is to run unless the user said -S. Lets it run.
    std::function<Status()> arrived = {};
    /// An incoming migration failed and the monitor is to end (`exit-on-error`).
    std::function<void(const Error& error)> give_up = {};
  };
  /// `settings` outlives it.
  Migration(Subject subject, About about, Settings& settings, Hooks hooks);
  Migration(const Migration&) = delete;
  Migration& operator=(const Migration&) = delete;
  ~Migration();

  /// `migrate`: the machine leaves for `to`, as the parameter `mode` says. In the mode cpr-transfer
  /// all of it goes over `to.cpr`, or `to.main` if there is no other; in the mode cpr-exec `to` is
  /// not used. @return why it cannot, with nothing changed
  Status Migrate(const ChannelAddresses& to);
  /// `migrate_cancel`. Nothing if there is none.
  Status Cancel();
  /// `migrate-continue`, from kPreSwitchover. @return kInvalidArgument in QEMU's words
  Status Continue();
  /// `migrate-start-postcopy`. @return kInvalidArgument in QEMU's words
  Status StartPostcopy();

  /// `migrate-pause`: lets go of the connections of a post-copy. @return kInvalidArgument in QEMU's
  /// words
  Status Pause();
  /// `migrate` with `resume`: from the source, connects a paused post-copy again.
  /// @return kInvalidArgument in QEMU's words
  Status Resume(const Address& to);
  /// `migrate-recover`: at the destination, waits for the source at another address.
  /// @return kInvalidArgument in QEMU's words; what is wrong with the address
  Status Recover(const Address& from);

  /// -incoming ADDRESS, or with `defer` the command migrate-incoming: waits for the machine.
  /// @return kInvalidArgument for a machine that does not wait for its state; what is wrong with
  ///         the address
  Status Listen(const Address& from, bool exit_on_error);
  /// Where Listen() listens, with the port that was chosen.
  std::optional<Address> listening() const;

  MigrationInfo info() const;
  /// Whether one is under way or waited for.
  bool active() const noexcept {
    return outgoing_ != nullptr || incoming_ != nullptr || local_ != nullptr;
  }
  /// Why this machine cannot be migrated; empty if it can.
  std::optional<Error> blocker() const;
  Settings& settings() noexcept { return settings_; }

 private:
  Status CheckFree() const;
  Status ToPeer(const Address& to);
  Result<std::unique_ptr<LocalMigration>> StartLocal(const ChannelAddresses& to);
  void Began(MigrationStatus status);
  void Ended(const MigrationInfo& info, const Status& status);
  Result<std::shared_ptr<const object::TlsContext>> Tls(bool server) const;

  const Subject subject_;
  const About about_;
  Settings& settings_;
  const Hooks hooks_;
  std::unique_ptr<Outgoing> outgoing_;
  std::unique_ptr<Incoming> incoming_;
  std::unique_ptr<LocalMigration> local_;
  std::optional<MigrationInfo> last_;  // the one that is over
};

}  // namespace holdfast::migration
