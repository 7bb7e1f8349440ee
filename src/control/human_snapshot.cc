// SPDX-License-Identifier: Apache-2.0
// savevm, loadvm, info snapshots, info jobs.
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <holdfast/units.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <string>
#include <vector>

#include "base/log.h"
#include "control/context.h"
#include "control/human_commands.h"
#include "control/words.h"
#include "migration/snapshot_path.h"
#include "migration/snapshots.h"

namespace holdfast::control {
namespace {

std::string TimeText(std::time_t seconds, const char* format) {
  std::tm local{};
  if (::localtime_r(&seconds, &local) == nullptr) return "?";
  return fmt::format(fmt::runtime(format), local);
}

// The monitor does not wait for the job, so its end is told in the log.
migration::Snapshots::Done TellAndForget(VmContext& context, std::string job) {
  return [&context, job = std::move(job)](const Status& status) {
    if (status) {
      log::Info(fmt::format("{}: done", job));
    } else {
      log::Error(Error(status.error()).Wrap(job));
    }
    (void)context.snapshots().Dismiss(job);
  };
}

}  // namespace

Result<std::string> HumanCommands::Savevm(std::string_view arguments) {
  // QEMU's name for a snapshot that nobody names.
  const std::string name = arguments.empty() ? TimeText(std::time(nullptr), "vm-{:%Y%m%d%H%M%S}")
                                             : std::string(arguments);
  const std::string job = fmt::format("savevm {}", name);
  migration::SaveRequest request;
  request.path = migration::SnapshotPath(name);
  HF_TRY_STATUS(context_.snapshots().Save(job, std::move(request), TellAndForget(context_, job)));
  return fmt::format("saving to {}; disks are not part of it\n", migration::SnapshotPath(name));
}

Result<std::string> HumanCommands::Loadvm(std::string_view arguments) {
  if (arguments.empty()) {
    return Fail(Errc::kInvalidArgument, "loadvm: the name of the snapshot is missing",
                "'info snapshots' lists them.");
  }
  const std::string job = fmt::format("loadvm {}", arguments);
  HF_TRY_STATUS(context_.snapshots().Load(job, migration::SnapshotPath(arguments),
                                          TellAndForget(context_, job)));
  return fmt::format("loading {}\n", migration::SnapshotPath(arguments));
}

Result<std::string> HumanCommands::InfoJobs(std::string_view) {
  std::string text;
  for (const migration::JobInfo& job : context_.snapshots().jobs()) {
    text += fmt::format("{}: {}, {}, {} of {}", job.id, job.type, ToString(job.status),
                        FormatSize(job.current), FormatSize(job.total));
    if (job.error) text += fmt::format(": {}", job.error->ToString());
    text += '\n';
  }
  return text.empty() ? "There are no jobs\n" : text;
}

Result<std::string> HumanCommands::InfoSnapshots(std::string_view) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(".", error)) {
    if (entry.path().extension() == migration::kSnapshotSuffix)
      names.push_back(entry.path().stem().string());
  }
  std::ranges::sort(names);
  std::string text;
  for (const std::string& name : names) {
    const auto file = migration::SnapshotFile::Open(migration::SnapshotPath(name));
    if (!file) {
      text += fmt::format("{:<24} {}\n", name, file.error().message());
      continue;
    }
    text += fmt::format(
        "{:<24} {:>10} {} {}\n", name, FormatSize(file->header().file_size),
        TimeText(static_cast<std::time_t>(file->directory().created), "{:%Y-%m-%d %H:%M:%S}"),
        file->header().diff() ? fmt::format("differs from {}", file->directory().parent_file) : "");
  }
  return text.empty() ? "There is no snapshot available.\n" : text;
}

}  // namespace holdfast::control
