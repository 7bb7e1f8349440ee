// SPDX-License-Identifier: Apache-2.0
// The part of VirtualMachine that sends it to another monitor and takes it in.
#include <fmt/format.h>

#include <cstdlib>

#include "apps/vm_builder.h"
#include "migration/announce.h"
#include "object/tls_credentials.h"

namespace holdfast::apps {
namespace {

using migration::Migration;
using TlsKeys = std::shared_ptr<const object::TlsContext>;

Result<TlsKeys> FindTls(const object::ObjectStore& objects, const std::string& id, bool server) {
  const auto* const credentials = dynamic_cast<const object::TlsCredentials*>(objects.Find(id));
  if (credentials == nullptr) {
    return Fail(Errc::kNotFound, fmt::format("there is no TLS credentials object '{}'", id),
                "Make it with -object tls-creds-x509 or tls-creds-psk.");
  }
  TlsKeys keys = credentials->context();
  const auto wanted = server ? object::TlsEndpoint::kServer : object::TlsEndpoint::kClient;
  if (keys->endpoint() == wanted) return keys;
  return Fail(Errc::kInvalidArgument,
              fmt::format("the TLS credentials '{}' are not those of a {}", id,
                          server ? "server" : "client"),
              fmt::format("Make them with endpoint={}.", server ? "server" : "client"));
}

}  // namespace

void VirtualMachine::BuildMigration() {
  Migration::Hooks hooks;
  hooks.status_changed = [this](migration::MigrationStatus status) {
    if (migration_settings_.capabilities()[migration::Capability::kEvents])
      qmp_->Emit("MIGRATION", {{"status", ToString(status)}});
  };
  hooks.pass = [this](std::uint64_t pass) {
    if (migration_settings_.capabilities()[migration::Capability::kEvents])
      qmp_->Emit("MIGRATION_PASS", {{"pass", pass}});
  };
  hooks.tls = [this](const std::string& id, bool server) {
    return FindTls(options_.objects, id, server);
  };
  hooks.services.may_spawn = !options_.sandbox.enabled || options_.sandbox.spawn;
  hooks.services.take_fd = [this](const std::string& name) { return passed_fds_.Take(name); };
  hooks.busy = [this]() -> std::string {
    for (const migration::JobInfo& job : snapshots_->jobs()) {
      if (job.status != migration::JobStatus::kConcluded) return job.id;
    }
    return {};
  };
  hooks.arrived = [this]() -> Status {
    // Ports of switches lead to where the guest was, whether it runs at once or not.
    HF_TRY_STATUS(network_.Announce(AnnounceTimesOf(migration_settings_.parameters())));
    const bool stays = options_.machine.start_paused || !machine_->saved_running();
    return stays ? Status() : machine_->Resume();
  };
  hooks.give_up = [this](const Error&) { Quit(EXIT_FAILURE); };
  migration_ = std::make_unique<Migration>(
      MigrationSubject(),
      Migration::About{.creator = fmt::format("{} {}", kProgram, kVersion),
                       .name = options_.guest_name,
                       .uuid = options_.uuid,
                       .command_line = options_.command_line},
      migration_settings_, std::move(hooks));
}

// Before the process is confined, as whatever is listened on.
Status VirtualMachine::Await() {
  const IncomingOptions& incoming = *options_.incoming;
  return incoming.address ? migration_->Listen(*incoming.address, true) : Status();
}

}  // namespace holdfast::apps
