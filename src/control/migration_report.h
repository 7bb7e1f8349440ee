// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>

#include "control/qmp_json.h"
#include "migration/address.h"
#include "migration/migration_info.h"

/// What monitors tell of a migration, made from plain data.
///
/// Thread-safety: any thread.
namespace holdfast::control {

/// The members of QEMU's MigrationInfo that there are for `info`; none if there was no migration.
Json MigrationJson(const migration::MigrationInfo& info);

/// The SocketAddress that somebody may connect to; empty for addresses that are no sockets.
std::optional<Json> SocketAddressJson(const migration::Address& address);

/// `info migrate`, in the form of QEMU's; empty if there was no migration.
std::string MigrationText(const migration::MigrationInfo& info);

}  // namespace holdfast::control
