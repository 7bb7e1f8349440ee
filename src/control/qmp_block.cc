// SPDX-License-Identifier: Apache-2.0
// What disks there are and what they did: query-block and its kin.
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "control/qmp_commands.h"
#include "devices/block/block_graph.h"
#include "devices/block/storage_daemon.h"
#include "object/iothread.h"
#include "object/object.h"

namespace holdfast::control {
namespace {

using devices::block::BlockDevice;
using devices::block::BlockGraph;
using devices::block::Drive;
using devices::block::DriveStats;
using devices::block::NodeInfo;
using object::ThrottleKind;

constexpr std::array<std::string_view, 3> kDetectWords = {"off", "on", "unmap"};
constexpr std::array<std::string_view, object::kThrottleKinds> kLimitWords = {
    "bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"};

Json DescribeImage(const BlockDevice& device, const NodeInfo& info) {
  Json image = {
      {"filename", info.filename}, {"format", info.driver}, {"virtual-size", device.size()}};
  struct stat status = {};
  if (info.driver != "null-co" && ::stat(info.filename.c_str(), &status) == 0) {
    image["actual-size"] = static_cast<std::uint64_t>(status.st_blocks) * 512;
  }
  return image;
}

void AddLimits(Json& json, const Drive& drive) {
  const object::ThrottleLimits limits = drive.throttle()->limits();
  for (std::size_t i = 0; i < kLimitWords.size(); ++i) {
    const object::ThrottleLimit& limit = limits.limits[i];
    json[kLimitWords[i]] = limit.average;
    if (limit.maximum == 0) continue;
    json[fmt::format("{}_max", kLimitWords[i])] = limit.maximum;
    json[fmt::format("{}_max_length", kLimitWords[i])] = limit.burst_seconds;
  }
  if (limits.iops_size != 0) json["iops_size"] = limits.iops_size;
  if (!limits.any()) return;
  json["group"] = drive.throttle_group().empty() ? drive.id() : drive.throttle_group();
}

// A node, as the drive `drive` sees it; null: as nobody does.
Json DescribeNode(const BlockGraph& graph, const BlockDevice& device, const Drive* drive) {
  NodeInfo info = device.info();
  const BlockGraph::Node* const node = graph.NodeOf(&device);
  // -drive file= has no node of the format's own: what it shows is raw.
  if (node != nullptr && node->internal && info.driver == "file") info.driver = "raw";
  Json json = {{"file", info.filename},
               {"node-name", device.id()},
               {"ro", device.readonly()},
               {"drv", info.driver},
               {"backing_file_depth", 0},
               {"encrypted", false},
               {"detect_zeroes",
                kDetectWords[static_cast<std::size_t>(
                    drive != nullptr ? drive->detect_zeroes : devices::block::DetectZeroes::kOff)]},
               {"image", DescribeImage(device, info)},
               {"cache",
                {{"writeback", drive == nullptr || drive->write_cache()},
                 {"direct", info.direct},
                 {"no-flush", info.no_flush}}},
               {"write_threshold", 0}};
  if (drive != nullptr) {
    AddLimits(json, *drive);
  } else {
    for (const std::string_view name : kLimitWords) json[name] = 0;
  }
  return json;
}

// An image that qemu-storage-daemon serves, as far as this process knows it.
Json DescribeServed(const BlockGraph::Image& image) {
  const devices::block::StorageDaemon& daemon = *image.daemon;
  const devices::block::StorageDaemon::Plugged plugged = daemon.plugged();
  const devices::block::NodeOptions& node = daemon.config().node;
  Json inserted = {
      {"file", daemon.filename()},
      {"ro", daemon.readonly()},
      {"drv", daemon.config().snapshot ? "qcow2" : daemon.format()},
      {"backing_file_depth", daemon.config().snapshot ? 1 : 0},
      {"encrypted", false},
      {"detect_zeroes", kDetectWords[static_cast<std::size_t>(node.detect_zeroes)]},
      {"image",
       {{"filename", daemon.filename()},
        {"format", daemon.format()},
        {"virtual-size", plugged.size}}},
      {"cache", {{"writeback", true}, {"direct", node.direct}, {"no-flush", node.no_flush}}},
      {"write_threshold", 0}};
  if (image.node) inserted["node-name"] = image.id;
  if (daemon.config().snapshot) inserted["backing_file"] = daemon.filename();
  for (const std::string_view name : kLimitWords) inserted[name] = 0;
  Json info = {{"device", image.node ? std::string() : image.id},
               {"type", "unknown"},
               {"removable", false},
               {"locked", false},
               {"inserted", std::move(inserted)}};
  if (!plugged.device.empty()) info["qdev"] = plugged.device;
  if (daemon.used()) info["io-status"] = "ok";
  return info;
}

QmpResult QueryBlock(VmContext& vm, const Json&) {
  Json list = Json::array();
  for (const auto& drive : vm.block->drives()) {
    const devices::block::DriveUser* const user = drive->user();
    if (drive->id().empty() && user == nullptr) continue;
    Json info = {{"device", drive->id()},
                 {"type", "unknown"},
                 {"removable", user != nullptr && user->removable},
                 {"locked", drive->tray_locked()}};
    if (user != nullptr && !user->name.empty()) info["qdev"] = user->name;
    if (user != nullptr && user->removable) info["tray_open"] = drive->medium() == nullptr;
    if (user != nullptr) info["io-status"] = "ok";
    if (drive->medium() != nullptr) {
      info["inserted"] = DescribeNode(*vm.block, *drive->medium(), drive.get());
    }
    list.push_back(std::move(info));
  }
  for (const auto& image : vm.block->images()) {
    if (!image->node || image->daemon->used()) list.push_back(DescribeServed(*image));
  }
  return list;
}

QmpResult QueryNamedBlockNodes(VmContext& vm, const Json&) {
  Json list = Json::array();
  for (const auto& node : vm.block->nodes()) {
    const auto user = std::ranges::find_if(vm.block->drives(), [&](const auto& drive) {
      return drive->medium() == node->device.get();
    });
    const Drive* const drive = user == vm.block->drives().end() ? nullptr : user->get();
    list.push_back(DescribeNode(*vm.block, *node->device, drive));
  }
  return list;
}

Json DescribeStats(DriveStats& stats) {
  Json json = {{"wr_highest_offset", 0},      {"rd_merged", 0},          {"wr_merged", 0},
               {"unmap_merged", 0},           {"account_invalid", true}, {"account_failed", true},
               {"timed_stats", Json::array()}};
  const auto add = [&](const std::string& name, const DriveStats::Counter& counter) {
    json[name + "_operations"] = counter.operations.load();
    json[name + "_total_time_ns"] = counter.nanoseconds.load();
    json[fmt::format("failed_{}_operations", name)] = counter.failed.load();
    json[fmt::format("invalid_{}_operations", name)] = counter.invalid.load();
    if (name != "flush") json[name + "_bytes"] = counter.bytes.load();
  };
  add("rd", stats.read);
  add("wr", stats.write);
  add("flush", stats.flush);
  add("unmap", stats.unmap);
  return json;
}

QmpResult QueryBlockStats(VmContext& vm, const Json&) {
  Json list = Json::array();
  for (const auto& drive : vm.block->drives()) {
    if (drive->id().empty() && drive->user() == nullptr) continue;
    Json entry = {{"device", drive->id()}, {"stats", DescribeStats(drive->stats())}};
    if (drive->user() != nullptr && !drive->user()->name.empty()) {
      entry["qdev"] = drive->user()->name;
    }
    if (drive->medium() != nullptr) entry["node-name"] = drive->medium()->id();
    list.push_back(std::move(entry));
  }
  return list;
}

QmpResult QueryIoThreads(VmContext& vm, const Json&) {
  Json list = Json::array();
  for (const auto& object : vm.objects->objects()) {
    auto* const thread = dynamic_cast<object::IoThread*>(object.get());
    if (thread == nullptr) continue;
    HF_QMP_TRY([[maybe_unused]] EventLoop * loop, thread->Loop());
    const object::IoThread::Settings& settings = thread->settings();
    list.push_back({{"id", thread->id()},
                    {"thread-id", thread->tid()},
                    {"poll-max-ns", settings.poll_max_ns},
                    {"poll-grow", settings.poll_grow},
                    {"poll-shrink", settings.poll_shrink},
                    {"aio-max-batch", settings.aio_max_batch}});
  }
  return list;
}

void DefineBlockTypes(Schema& schema) {
  schema.Struct(
      "ImageInfo",
      {{"filename", "str"}, {"format", "str"}, {"actual-size?", "int"}, {"virtual-size", "int"}});
  schema.Struct("BlockdevCacheInfo",
                {{"writeback", "bool"}, {"direct", "bool"}, {"no-flush", "bool"}});
  schema.Enum("BlockdevDetectZeroesOptions", {"off", "on", "unmap"});
  std::vector<Schema::Member> members = {{"file", "str"},
                                         {"node-name?", "str"},
                                         {"ro", "bool"},
                                         {"drv", "str"},
                                         {"backing_file?", "str"},
                                         {"backing_file_depth", "int"},
                                         {"encrypted", "bool"},
                                         {"detect_zeroes", "BlockdevDetectZeroesOptions"},
                                         {"image", "ImageInfo"},
                                         {"iops_size?", "int"},
                                         {"group?", "str"},
                                         {"cache", "BlockdevCacheInfo"},
                                         {"write_threshold", "int"}};
  for (const std::string name : {"bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"}) {
    members.push_back({name, "int"});
    members.push_back({name + "_max?", "int"});
    members.push_back({name + "_max_length?", "int"});
  }
  schema.Struct("BlockDeviceInfo", std::move(members));
  schema.Enum("BlockDeviceIoStatus", {"ok", "failed", "nospace"});
  schema.Struct("BlockInfo", {{"device", "str"},
                              {"qdev?", "str"},
                              {"type", "str"},
                              {"removable", "bool"},
                              {"locked", "bool"},
                              {"inserted?", "BlockDeviceInfo"},
                              {"tray_open?", "bool"},
                              {"io-status?", "BlockDeviceIoStatus"}});
}

void DefineStatTypes(Schema& schema) {
  schema.Struct("BlockDeviceTimedStats", {{"interval_length", "int"}});
  std::vector<Schema::Member> members = {{"wr_highest_offset", "int"},
                                         {"rd_merged", "int"},
                                         {"wr_merged", "int"},
                                         {"unmap_merged", "int"},
                                         {"account_invalid", "bool"},
                                         {"account_failed", "bool"},
                                         {"timed_stats", "[BlockDeviceTimedStats]"}};
  for (const std::string name : {"rd", "wr", "flush", "unmap"}) {
    members.push_back({name + "_operations", "int"});
    members.push_back({name + "_total_time_ns", "int"});
    members.push_back({fmt::format("failed_{}_operations", name), "int"});
    members.push_back({fmt::format("invalid_{}_operations", name), "int"});
    if (name != "flush") members.push_back({name + "_bytes", "int"});
  }
  schema.Struct("BlockDeviceStats", std::move(members));
  schema.Struct(
      "BlockStats",
      {{"device?", "str"}, {"qdev?", "str"}, {"node-name?", "str"}, {"stats", "BlockDeviceStats"}});
}

}  // namespace

void DefineBlockQueries(Schema& schema) {
  DefineBlockTypes(schema);
  DefineStatTypes(schema);
  schema.AddCommand("query-block", {.result = "[BlockInfo]", .run = QueryBlock});
  schema.Struct("QueryBlockstatsArguments", {{"query-nodes?", "bool"}});
  schema.AddCommand(
      "query-blockstats",
      {.arguments = "QueryBlockstatsArguments", .result = "[BlockStats]", .run = QueryBlockStats});
  schema.Struct("QueryNamedBlockNodesArguments", {{"flat?", "bool"}});
  schema.AddCommand("query-named-block-nodes", {.arguments = "QueryNamedBlockNodesArguments",
                                                .result = "[BlockDeviceInfo]",
                                                .run = QueryNamedBlockNodes});
  schema.Struct("IOThreadInfo", {{"id", "str"},
                                 {"thread-id", "int"},
                                 {"poll-max-ns", "int"},
                                 {"poll-grow", "int"},
                                 {"poll-shrink", "int"},
                                 {"aio-max-batch", "int"}});
  schema.AddCommand("query-iothreads", {.result = "[IOThreadInfo]", .run = QueryIoThreads});
}

}  // namespace holdfast::control
