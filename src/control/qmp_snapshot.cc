// SPDX-License-Identifier: Apache-2.0
// Snapshots and the jobs that save and load them. The commands have names of our own where QEMU's
// snapshot-save and snapshot-load mean something else: those keep memory inside disk images, with
// the disks' contents; these write a file of its own and leave disks as they are.
#include "control/qmp_commands.h"
#include "migration/snapshots.h"

namespace holdfast::control {
namespace {

using migration::JobInfo;

QmpResult SnapshotSave(VmContext& vm, const Json& arguments) {
  migration::SaveRequest request;
  request.path = arguments["path"].get<std::string>();
  request.live = arguments.value("live", false);
  request.zstd = arguments.value("compression", "none") == "zstd";
  request.stop = arguments.value("stop", false);
  request.parent = arguments.value("parent", "");
  const std::int64_t limit =
      arguments.value("downtime-limit", static_cast<std::int64_t>(request.downtime_limit_ms));
  constexpr std::int64_t kLongest = 2'000'000;  // QEMU's for migration
  if (limit < 0 || limit > kLongest)
    return QmpFail("Parameter 'downtime-limit' expects a number from 0 to 2000000");
  request.downtime_limit_ms = static_cast<std::uint64_t>(limit);
  HF_QMP_TRY_STATUS(
      vm.snapshots().Save(arguments["job-id"].get<std::string>(), std::move(request)));
  return Json::object();
}

QmpResult SnapshotLoad(VmContext& vm, const Json& arguments) {
  HF_QMP_TRY_STATUS(vm.snapshots().Load(arguments["job-id"].get<std::string>(),
                                        arguments["path"].get<std::string>()));
  return Json::object();
}

QmpResult QueryJobs(VmContext& vm, const Json&) {
  Json list = Json::array();
  for (const JobInfo& job : vm.snapshots().jobs()) {
    Json one = {{"id", job.id},
                {"type", job.type},
                {"status", ToString(job.status)},
                {"current-progress", job.current},
                {"total-progress", job.total}};
    if (job.error) one["error"] = job.error->ToString();
    list.push_back(std::move(one));
  }
  return list;
}

QmpResult JobCancel(VmContext& vm, const Json& arguments) {
  HF_QMP_TRY_STATUS(vm.snapshots().Cancel(arguments["id"].get<std::string>()));
  return Json::object();
}

QmpResult JobDismiss(VmContext& vm, const Json& arguments) {
  HF_QMP_TRY_STATUS(vm.snapshots().Dismiss(arguments["id"].get<std::string>()));
  return Json::object();
}

}  // namespace

void DefineSnapshotCommands(Schema& schema) {
  schema.Enum("HoldfastSnapshotCompression", {"none", "zstd"});
  schema.Struct("HoldfastSnapshotSave", {{"job-id", "str"},
                                         {"path", "str"},
                                         {"live?", "bool"},
                                         {"compression?", "HoldfastSnapshotCompression"},
                                         {"parent?", "str"},
                                         {"stop?", "bool"},
                                         {"downtime-limit?", "int"}});
  schema.AddCommand("holdfast-snapshot-save",
                    {.arguments = "HoldfastSnapshotSave", .run = SnapshotSave});
  schema.Struct("HoldfastSnapshotLoad", {{"job-id", "str"}, {"path", "str"}});
  schema.AddCommand("holdfast-snapshot-load",
                    {.arguments = "HoldfastSnapshotLoad", .run = SnapshotLoad});

  // All of QEMU's words: clients have tables of them.
  schema.Enum("JobStatus", {"undefined", "created", "running", "paused", "ready", "standby",
                            "waiting", "pending", "aborting", "concluded", "null"});
  schema.Enum("JobType",
              {"holdfast-snapshot-save", "holdfast-snapshot-load", "holdfast-snapshot-restore"});
  schema.Struct("JobInfo", {{"id", "str"},
                            {"type", "JobType"},
                            {"status", "JobStatus"},
                            {"current-progress", "int"},
                            {"total-progress", "int"},
                            {"error?", "str"}});
  schema.AddCommand("query-jobs", {.result = "[JobInfo]", .run = QueryJobs});
  schema.Struct("JobName", {{"id", "str"}});
  schema.AddCommand("job-cancel", {.arguments = "JobName", .run = JobCancel});
  schema.AddCommand("job-dismiss", {.arguments = "JobName", .run = JobDismiss});
  schema.Struct("JobStatusChange", {{"id", "str"}, {"status", "JobStatus"}});
  schema.AddEvent("JOB_STATUS_CHANGE", "JobStatusChange");
  schema.Struct("HoldfastRestoreError", {{"memory", "str"}, {"offset", "size"}, {"error", "str"}});
  schema.AddEvent("HOLDFAST_RESTORE_ERROR", "HoldfastRestoreError");
}

}  // namespace holdfast::control
