// SPDX-License-Identifier: Apache-2.0
// Commands that change disks: blockdev-add, block_resize, block_set_io_throttle, the trays.
#include <fmt/format.h>

#include <array>
#include <initializer_list>
#include <string>
#include <vector>

#include "control/qmp_commands.h"
#include "devices/block/block_graph.h"

namespace holdfast::control {
namespace {

using devices::block::BlockDevice;
using devices::block::Drive;
using devices::block::NodeOptions;

tl::unexpected<QmpError> NoDevice(std::string_view name) {
  return QmpFail(QmpErrorClass::kDeviceNotFound, fmt::format("Cannot find device '{}'", name));
}

// The drive that one of these arguments names; an empty one does not count.
tl::expected<Drive*, QmpError> FindDrive(VmContext& vm, const Json& arguments,
                                         std::initializer_list<const char*> keys) {
  std::string name;
  for (const char* const key : keys) {
    const std::string given = arguments.value(key, std::string());
    if (given.empty()) continue;
    if (!name.empty()) {
      return QmpFail(
          fmt::format("Only one of '{}' may be given",
                      fmt::join(std::vector<std::string>(keys.begin(), keys.end()), "', '")));
    }
    name = given;
  }
  if (name.empty()) return QmpFail("Need exactly one of 'device' and 'id'");
  Drive* const drive = vm.block->Lookup(name);
  if (drive == nullptr) return NoDevice(name);
  return drive;
}

QmpResult BlockdevAdd(VmContext& vm, const Json& arguments) {
  HF_QMP_TRY(const object::KeyValues values, devices::block::FlattenJson(arguments));
  HF_QMP_TRY(const NodeOptions node, devices::block::ParseNodeOptions(values));
  if (node.node_name.empty()) {
    return QmpFail("'node-name' must be specified for the root node");
  }
  HF_QMP_TRY_STATUS(vm.block->AddBlockdev(node));
  return Json::object();
}

QmpResult BlockdevDel(VmContext& vm, const Json& arguments) {
  HF_QMP_TRY_STATUS(vm.block->RemoveNode(arguments["node-name"].get_ref<const std::string&>()));
  return Json::object();
}

QmpResult BlockResize(VmContext& vm, const Json& arguments) {
  const auto size = arguments["size"].get<std::int64_t>();
  if (size < 0) return QmpFail("Parameter 'size' expects a >0 size");
  auto drive = FindDrive(vm, arguments, {"device", "node-name"});
  if (!drive) return tl::unexpected(drive.error());
  HF_QMP_TRY_STATUS((*drive)->Resize((static_cast<std::uint64_t>(size) + 511) / 512 * 512));
  return Json::object();
}

QmpResult BlockSetIoThrottle(VmContext& vm, const Json& arguments) {
  static constexpr std::array<const char*, object::kThrottleKinds> kNames = {
      "bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"};
  auto drive = FindDrive(vm, arguments, {"device", "id"});
  if (!drive) return tl::unexpected(drive.error());
  object::ThrottleLimits limits;
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    object::ThrottleLimit& limit = limits.limits[i];
    const auto read = [&](const std::string& name, std::uint64_t otherwise) {
      const auto value = arguments.value(name, static_cast<std::int64_t>(otherwise));
      return static_cast<std::uint64_t>(value);  // a negative one is far beyond the largest
    };
    limit.average = read(kNames[i], 0);
    limit.maximum = read(fmt::format("{}_max", kNames[i]), 0);
    limit.burst_seconds = read(fmt::format("{}_max_length", kNames[i]), 1);
  }
  limits.iops_size = static_cast<std::uint64_t>(arguments.value("iops_size", std::int64_t{0}));
  HF_QMP_TRY_STATUS(limits.Check());
  (*drive)->throttle()->Set(limits);
  return Json::object();
}

// ---- Trays --------------------------------------------------------------------------------------

Status ExchangeMedium(VmContext& vm, Drive& drive, BlockDevice* medium) {
  BlockDevice* const old = drive.medium();
  HF_TRY_STATUS(drive.SetMedium(medium));
  if (old != nullptr) vm.block->DropMedium(old);
  return {};
}

tl::expected<Drive*, QmpError> FindTray(VmContext& vm, const Json& arguments, bool force) {
  auto drive = FindDrive(vm, arguments, {"device", "id"});
  if (!drive) return drive;
  const devices::block::DriveUser* const user = (*drive)->user();
  const std::string name = (*drive)->id();
  if (user == nullptr || !user->removable) {
    return QmpFail(fmt::format("Device '{}' is not removable", name));
  }
  if ((*drive)->tray_locked() && !force) {
    return QmpFail(
        fmt::format("Device '{}' is locked and force was not specified, wait for tray "
                    "to open and try again",
                    name));
  }
  return drive;
}

QmpResult Eject(VmContext& vm, const Json& arguments) {
  auto drive = FindTray(vm, arguments, arguments.value("force", false));
  if (!drive) return tl::unexpected(drive.error());
  HF_QMP_TRY_STATUS(ExchangeMedium(vm, **drive, nullptr));
  return Json::object();
}

QmpResult ChangeMedium(VmContext& vm, const Json& arguments) {
  auto drive = FindTray(vm, arguments, arguments.value("force", false));
  if (!drive) return tl::unexpected(drive.error());
  NodeOptions node;
  node.filename = arguments["filename"].get<std::string>();
  node.read_only = true;
  if (node.filename.find('\0') != std::string::npos) {
    return QmpFail("Parameter 'filename' expects a file name without NUL");
  }
  HF_QMP_TRY(BlockDevice* const medium, vm.block->AddNode(node));
  if (Status changed = ExchangeMedium(vm, **drive, medium); !changed) {
    vm.block->DropMedium(medium);
    return tl::unexpected<QmpError>(changed.error());
  }
  return Json::object();
}

void DefineBlockdevAdd(Schema& schema) {
  schema.Enum("BlockdevDriver", {"file", "host_device", "null-co", "raw", "qcow2", "qcow", "vmdk",
                                 "vdi", "vhdx", "vpc", "qed", "parallels"});
  schema.Enum("BlockdevDiscardOptions", {"ignore", "unmap"});
  schema.Enum("BlockdevAioOptions", {"threads", "native", "io_uring"});
  schema.Struct("BlockdevCacheOptions", {{"direct?", "bool"}, {"no-flush?", "bool"}});
  schema.Enum("BlockdevLocking", {"auto", "on", "off"});
  schema.Struct(
      "BlockdevOptionsFile",
      {{"filename", "str"}, {"aio?", "BlockdevAioOptions"}, {"locking?", "BlockdevLocking"}});
  schema.Struct("BlockdevOptionsNull", {{"size?", "int"}, {"read-zeroes?", "bool"}});
  schema.Alternate("BlockdevRef", {"BlockdevOptions", "str"});
  schema.Struct("BlockdevOptionsRaw",
                {{"file", "BlockdevRef"}, {"offset?", "int"}, {"size?", "int"}});
  schema.Alternate("BlockdevRefOrNull", {"BlockdevOptions", "str", "null"});
  schema.Struct("BlockdevOptionsImage", {{"file", "BlockdevRef"}});
  schema.Struct("BlockdevOptionsLayer",
                {{"file", "BlockdevRef"}, {"backing?", "BlockdevRefOrNull"}});
  schema.Union("BlockdevOptions",
               {{"driver", "BlockdevDriver"},
                {"node-name?", "str"},
                {"discard?", "BlockdevDiscardOptions"},
                {"cache?", "BlockdevCacheOptions"},
                {"read-only?", "bool"},
                {"auto-read-only?", "bool"},
                {"force-share?", "bool"},
                {"detect-zeroes?", "BlockdevDetectZeroesOptions"}},
               "driver",
               {{"file", "BlockdevOptionsFile"},
                {"host_device", "BlockdevOptionsFile"},
                {"null-co", "BlockdevOptionsNull"},
                {"raw", "BlockdevOptionsRaw"},
                {"qcow2", "BlockdevOptionsLayer"},
                {"qcow", "BlockdevOptionsLayer"},
                {"vmdk", "BlockdevOptionsLayer"},
                {"qed", "BlockdevOptionsLayer"},
                {"vdi", "BlockdevOptionsImage"},
                {"vhdx", "BlockdevOptionsImage"},
                {"vpc", "BlockdevOptionsImage"},
                {"parallels", "BlockdevOptionsImage"}});
  schema.AddCommand("blockdev-add", {.arguments = "BlockdevOptions", .run = BlockdevAdd});
  schema.Struct("BlockdevDelArguments", {{"node-name", "str"}});
  schema.AddCommand("blockdev-del", {.arguments = "BlockdevDelArguments", .run = BlockdevDel});
}

void DefineTrays(Schema& schema) {
  schema.Struct("EjectArguments", {{"device?", "str"}, {"id?", "str"}, {"force?", "bool"}});
  schema.AddCommand("eject", {.arguments = "EjectArguments", .run = Eject});
  schema.Struct("BlockdevChangeMediumArguments", {{"device?", "str"},
                                                  {"id?", "str"},
                                                  {"filename", "str"},
                                                  {"format?", "str"},
                                                  {"force?", "bool"}});
  schema.AddCommand("blockdev-change-medium",
                    {.arguments = "BlockdevChangeMediumArguments", .run = ChangeMedium});
}

}  // namespace

void DefineBlockCommands(Schema& schema) {
  DefineBlockdevAdd(schema);
  schema.Struct("BlockResizeArguments",
                {{"device?", "str"}, {"node-name?", "str"}, {"size", "int"}});
  schema.AddCommand("block_resize", {.arguments = "BlockResizeArguments", .run = BlockResize});
  std::vector<Schema::Member> limits = {
      {"device?", "str"}, {"id?", "str"}, {"iops_size?", "int"}, {"group?", "str"}};
  for (const std::string name : {"bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"}) {
    limits.push_back({name, "int"});
    limits.push_back({name + "_max?", "int"});
    limits.push_back({name + "_max_length?", "int"});
  }
  schema.Struct("BlockIOThrottle", std::move(limits));
  schema.AddCommand("block_set_io_throttle",
                    {.arguments = "BlockIOThrottle", .run = BlockSetIoThrottle});
  DefineTrays(schema);

  schema.Enum("IoOperationType", {"read", "write"});
  schema.Enum("BlockErrorAction", {"ignore", "report", "stop"});
  schema.Struct("BlockIoErrorData", {{"qom-path", "str"},
                                     {"device", "str"},
                                     {"node-name?", "str"},
                                     {"operation", "IoOperationType"},
                                     {"action", "BlockErrorAction"},
                                     {"nospace?", "bool"},
                                     {"reason", "str"}});
  schema.AddEvent("BLOCK_IO_ERROR", "BlockIoErrorData");
}

}  // namespace holdfast::control
