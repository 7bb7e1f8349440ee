// SPDX-License-Identifier: Apache-2.0
// Migration: the commands that start, steer and watch it, and its events. The schema of what it may
// do is in qmp_migration_settings.cc.
#include "control/migration_report.h"
#include "control/qmp_commands.h"
#include "migration/migration.h"

namespace holdfast::control {
namespace {

using migration::Address;
using migration::ChannelAddresses;
using migration::Migration;

// Where it goes or comes from; the texts are QEMU's.
Result<ChannelAddresses> ReadAddresses(const Json& arguments, std::string_view command) {
  const auto uri = arguments.find("uri");
  const auto channels = arguments.find("channels");
  if (uri != arguments.end() && channels != arguments.end()) {
    return Fail(Errc::kInvalidArgument,
                "'uri' and 'channels' arguments are mutually exclusive; exactly one of the two "
                "should be present in '" +
                    std::string(command) + "' qmp command");
  }
  if (uri != arguments.end()) {
    HF_TRY(Address main, migration::ParseAddress(uri->get<std::string>()));
    return ChannelAddresses{.main = std::move(main)};
  }
  if (channels == arguments.end())
    return Fail(Errc::kInvalidArgument, "need either 'uri' or 'channels' argument");
  return migration::ChannelsFromJson(*channels);
}

QmpResult Migrate(VmContext& vm, const Json& arguments) {
  HF_QMP_TRY(const ChannelAddresses to, ReadAddresses(arguments, "migrate"));
  const bool resume = arguments.value("resume", false);
  if (resume && to.cpr) {
    return QmpFail("a migration that is resumed has no channel of the type 'cpr'",
                   "Leave the channel out.");
  }
  HF_QMP_TRY_STATUS(resume ? vm.migration().Resume(to.main) : vm.migration().Migrate(to));
  return Json::object();
}

QmpResult MigrateIncoming(VmContext& vm, const Json& arguments) {
  HF_QMP_TRY(const ChannelAddresses from, ReadAddresses(arguments, "migrate-incoming"));
  if (from.cpr) {
    return QmpFail("a channel of the type 'cpr' is waited on from the start of the monitor",
                   "Give it with -incoming.");
  }
  HF_QMP_TRY_STATUS(vm.migration().Listen(from.main, arguments.value("exit-on-error", true)));
  return Json::object();
}

QmpResult MigrateRecover(VmContext& vm, const Json& arguments) {
  HF_QMP_TRY(const Address from, migration::ParseAddress(arguments["uri"].get<std::string>()));
  HF_QMP_TRY_STATUS(vm.migration().Recover(from));
  return Json::object();
}

template <Status (Migration::*Step)()>
QmpResult Steer(VmContext& vm, const Json&) {
  HF_QMP_TRY_STATUS((vm.migration().*Step)());
  return Json::object();
}

QmpResult MigrateContinue(VmContext& vm, const Json& arguments) {
  // There is one state in which it waits for this.
  const auto state = arguments["state"].get<std::string>();
  const migration::MigrationStatus now = vm.migration().info().status;
  if (state != ToString(now))
    return QmpFail("Migration not in expected state: " + std::string(ToString(now)));
  return Steer<&Migration::Continue>(vm, arguments);
}

QmpResult QueryMigrate(VmContext& vm, const Json&) {
  const Migration& migration = vm.migration();
  Json info = MigrationJson(migration.info());
  if (const auto blocker = migration.blocker())
    info["blocked-reasons"] = Json::array({blocker->ToString()});
  if (const auto address = migration.listening()) {
    if (auto socket = SocketAddressJson(*address))
      info["socket-address"] = Json::array({*std::move(socket)});
  }
  return info;
}

void DefineAddresses(Schema& schema) {
  schema.Enum("MigrationAddressType", {"socket", "exec", "rdma", "file"});
  schema.Struct("MigrationExecCommand", {{"args", "[str]"}});
  schema.Struct("FileMigrationArgs", {{"filename", "str"}, {"offset?", "size"}});
  schema.Union("MigrationAddress", {{"transport", "MigrationAddressType"}}, "transport",
               {{"socket", "SocketAddress"},
                {"exec", "MigrationExecCommand"},
                {"rdma", "InetSocketAddress"},
                {"file", "FileMigrationArgs"}});
  schema.Enum("MigrationChannelType", {"main", "cpr"});
  schema.Struct("MigrationChannel",
                {{"channel-type", "MigrationChannelType"}, {"addr", "MigrationAddress"}});
}

void DefineQuery(Schema& schema) {
  // All of QEMU's words: clients have tables of them.
  schema.Enum(
      "MigrationStatus",
      {"none", "setup", "cancelling", "cancelled", "active", "postcopy-device", "postcopy-active",
       "postcopy-paused", "postcopy-recover-setup", "postcopy-recover", "completed", "failing",
       "failed", "colo", "pre-switchover", "device", "wait-unplug"});
  schema.Struct("MigrationStats", {{"transferred", "int"},
                                   {"remaining", "int"},
                                   {"total", "int"},
                                   {"duplicate", "int"},
                                   {"normal", "int"},
                                   {"normal-bytes", "int"},
                                   {"dirty-pages-rate", "int"},
                                   {"mbps", "number"},
                                   {"dirty-sync-count", "int"},
                                   {"postcopy-requests", "int"},
                                   {"page-size", "int"},
                                   {"pages-per-second", "uint64"},
                                   {"dirty-sync-missed-zero-copy", "uint64"}});
  schema.Struct("MigrationInfo", {{"status?", "MigrationStatus"},
                                  {"ram?", "MigrationStats"},
                                  {"total-time?", "int"},
                                  {"expected-downtime?", "int"},
                                  {"downtime?", "int"},
                                  {"setup-time?", "int"},
                                  {"cpu-throttle-percentage?", "int"},
                                  {"error-desc?", "str"},
                                  {"blocked-reasons?", "[str]"},
                                  {"socket-address?", "[SocketAddress]"}});
  schema.AddCommand("query-migrate", {.result = "MigrationInfo", .run = QueryMigrate});
}

}  // namespace

void DefineMigrationCommands(Schema& schema) {
  DefineAddresses(schema);
  DefineQuery(schema);
  schema.Struct("Migrate", {{"uri?", "str"},
                            {"channels?", "[MigrationChannel]"},
                            {"detach?", "bool"},
                            {"resume?", "bool"}});
  schema.AddCommand("migrate", {.arguments = "Migrate", .run = Migrate});
  schema.Struct("MigrateIncoming",
                {{"uri?", "str"}, {"channels?", "[MigrationChannel]"}, {"exit-on-error?", "bool"}});
  schema.AddCommand("migrate-incoming", {.arguments = "MigrateIncoming", .run = MigrateIncoming});
  schema.AddCommand("migrate_cancel", {.run = Steer<&Migration::Cancel>});
  schema.Struct("MigrateContinue", {{"state", "MigrationStatus"}});
  schema.AddCommand("migrate-continue", {.arguments = "MigrateContinue", .run = MigrateContinue});
  schema.AddCommand("migrate-start-postcopy", {.run = Steer<&Migration::StartPostcopy>});
  schema.AddCommand("migrate-pause", {.allow_oob = true, .run = Steer<&Migration::Pause>});
  schema.Struct("MigrateRecover", {{"uri", "str"}});
  schema.AddCommand("migrate-recover",
                    {.arguments = "MigrateRecover", .allow_oob = true, .run = MigrateRecover});

  schema.Struct("MigrationEvent", {{"status", "MigrationStatus"}});
  schema.AddEvent("MIGRATION", "MigrationEvent");
  schema.Struct("MigrationPassEvent", {{"pass", "int"}});
  schema.AddEvent("MIGRATION_PASS", "MigrationPassEvent");
}

}  // namespace holdfast::control
