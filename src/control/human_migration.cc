// SPDX-License-Identifier: Apache-2.0
// migrate and the commands that steer it, info migrate.
#include <fmt/format.h>

#include "control/context.h"
#include "control/human_commands.h"
#include "control/migration_report.h"
#include "control/words.h"
#include "migration/migration.h"

namespace holdfast::control {

Result<std::string> HumanCommands::Migrate(std::string_view arguments) {
  bool detached = false;
  bool resume = false;
  while (arguments.starts_with('-')) {
    const std::string_view flag = TakeWord(arguments);
    if (flag == "-r") {
      resume = true;
      continue;
    }
    if (flag != "-d") {
      return Fail(Errc::kInvalidArgument, fmt::format("migrate: unsupported option {}", flag),
                  "Write migrate [-d] [-r] URI.");
    }
    detached = true;
  }
  HF_TRY(migration::Address to, migration::ParseAddress(arguments));
  migration::Migration& migration = context_.migration();
  HF_TRY_STATUS(resume ? migration.Resume(to) : migration.Migrate({.main = std::move(to)}));
  // The monitor does not stand still for it, as it does in QEMU without -d.
  return detached ? std::string()
                  : "the migration goes on in the background; 'info migrate' shows how far it is\n";
}

Result<std::string> HumanCommands::MigrateIncoming(std::string_view arguments) {
  HF_TRY(const migration::Address from, migration::ParseAddress(arguments));
  HF_TRY_STATUS(context_.migration().Listen(from, true));
  return std::string();
}

Result<std::string> HumanCommands::MigrateCancel(std::string_view) {
  HF_TRY_STATUS(context_.migration().Cancel());
  return std::string();
}

Result<std::string> HumanCommands::MigrateContinue(std::string_view arguments) {
  const auto now = context_.migration().info().status;
  if (arguments != ToString(now)) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Migration not in expected state: {}", ToString(now)),
                "Write migrate_continue pre-switchover.");
  }
  HF_TRY_STATUS(context_.migration().Continue());
  return std::string();
}

Result<std::string> HumanCommands::MigrateStartPostcopy(std::string_view) {
  HF_TRY_STATUS(context_.migration().StartPostcopy());
  return std::string();
}

Result<std::string> HumanCommands::MigratePause(std::string_view) {
  HF_TRY_STATUS(context_.migration().Pause());
  return std::string();
}

Result<std::string> HumanCommands::MigrateRecover(std::string_view arguments) {
  HF_TRY(const migration::Address from, migration::ParseAddress(arguments));
  HF_TRY_STATUS(context_.migration().Recover(from));
  return std::string();
}

Result<std::string> HumanCommands::InfoMigrate(std::string_view) {
  const migration::Migration& migration = context_.migration();
  std::string text = MigrationText(migration.info());
  if (const auto blocker = migration.blocker())
    text += fmt::format("Outgoing migration blocked:\n  {}\n", blocker->ToString());
  if (const auto address = migration.listening())
    text += fmt::format("Sockets: [\n\t{}\n]\n", migration::Describe(*address));
  return text;
}

}  // namespace holdfast::control
