// SPDX-License-Identifier: Apache-2.0
#include "devices/block/block_graph.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/event_loop.h"
#include "devices/block/file_device.h"
#include "devices/block/null_device.h"
#include "devices/block/raw_device.h"
#include "devices/block/storage_daemon.h"

namespace holdfast::devices::block {
namespace {

constexpr std::uint64_t kNullSize = 1ULL << 30;  // as QEMU

FileOptions ToFileOptions(const NodeOptions& node) {
  return {.node_name = node.node_name,
          .filename = node.filename,
          .host_device = node.driver == NodeDriver::kHostDevice,
          .readonly = node.read_only.value_or(false),
          .auto_read_only = node.auto_read_only,
          .direct = node.direct,
          .no_flush = node.no_flush,
          .discard = node.discard,
          .aio = node.aio == AioWord::kThreads ? Aio::kThreads : Aio::kIoUring,
          .locking = node.force_share ? object::OnOffAuto::kOff : node.locking};
}

}  // namespace

struct BlockGraph::Shared {
  BlockGraph* graph;
};

BlockGraph::BlockGraph(EventLoop& loop)
    : loop_(loop), shared_(std::make_shared<Shared>(Shared{this})) {}

BlockGraph::~BlockGraph() {
  shared_->graph = nullptr;
  images_.clear();
  drives_.clear();
  while (!nodes_.empty()) nodes_.pop_back();
}

void BlockGraph::set_hooks(Hooks hooks) {
  hooks_ = std::move(hooks);
}

Status BlockGraph::FlushAll() {
  Status first;
  if (!active_) return first;
  for (const auto& drive : drives_) {
    if (drive->medium() == nullptr || drive->readonly()) continue;
    int error = 0;
    auto submitter = drive->MakeSubmitter(loop_);
    if (submitter) {
      (*submitter)
          ->Submit({.operation = Operation::kFlush, .buffers = {}, .done = [&error](int result) {
                      error = result;
                    }});
      (*submitter)->Drain();
    }
    if ((submitter && error == 0) || !first) continue;
    const std::string& name = drive->id().empty() ? drive->medium()->id() : drive->id();
    Error why = submitter ? Error::FromErrno("the host cannot flush it", error)
                          : std::move(submitter).error();
    first = Fail(std::move(why).Wrap(fmt::format("drive '{}'", name)));
  }
  for (const auto& image : images_) {
    Status flushed = image->daemon->Flush();
    if (flushed || !first) continue;
    first = Fail(std::move(flushed).error().Wrap(fmt::format("drive '{}'", image->id)));
  }
  return first;
}

Status BlockGraph::Inactivate() {
  if (!active_) return {};
  // The program holds the image open, and what it has not written yet is nobody else's to see.
  if (!images_.empty()) {
    return Fail(Errc::kUnsupported,
                fmt::format("the image '{}' is served by qemu-storage-daemon, which cannot hand it "
                            "over while it runs",
                            images_.front()->id),
                "Convert it to raw, or shut the guest down and start it again.");
  }
  HF_TRY_STATUS(FlushAll());
  for (const auto& drive : drives_) drive->set_active(false);
  for (const auto& node : nodes_) node->device->Inactivate();
  active_ = false;
  return {};
}

Status BlockGraph::Activate() {
  if (active_) return {};
  for (const auto& node : nodes_) {
    Status locked = node->device->Activate();
    if (locked) continue;
    for (const auto& each : nodes_) each->device->Inactivate();
    return locked;
  }
  for (const auto& drive : drives_) drive->set_active(true);
  active_ = true;
  return {};
}

void BlockGraph::MachineRuns() {
  for (const auto& drive : drives_) {
    if (drive->user() != nullptr && drive->user()->run_again) drive->user()->run_again();
  }
}

Status BlockGraph::CheckName(std::string_view name) const {
  if (FindNode(name) != nullptr || ImageOf(name) != nullptr) {
    return Fail(Errc::kInvalidArgument, fmt::format("Duplicate nodes with node-name='{}'", name),
                "Give each node its own name.");
  }
  const auto same_id = [&](const auto& drive) { return !name.empty() && drive->id() == name; };
  if (std::any_of(drives_.begin(), drives_.end(), same_id)) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("node-name={} is conflicting with a device id", name),
                "Give each node its own name.");
  }
  return {};
}

Result<BlockDevice*> BlockGraph::AddNode(const NodeOptions& options) {
  auto node = std::make_unique<Node>();
  node->options = options;
  if (node->options.node_name.empty()) {
    node->options.node_name = fmt::format("#block{}", next_name_++);
    node->internal = true;
  }
  HF_TRY_STATUS(CheckName(node->options.node_name));
  auto opened = Open(node->options, node->children);
  if (!opened) {
    if (options.own_child != nullptr) {
      for (const std::string& child : node->children) Erase(child);
    }
    return Fail(std::move(opened).error());
  }
  node->device = *std::move(opened);
  if (!active_) node->device->Inactivate();
  nodes_.push_back(std::move(node));
  return nodes_.back()->device.get();
}

Result<std::unique_ptr<BlockDevice>> BlockGraph::Open(const NodeOptions& options,
                                                      std::vector<std::string>& children) {
  using Made = Result<std::unique_ptr<BlockDevice>>;
  switch (options.driver) {
    case NodeDriver::kFile:
    case NodeDriver::kHostDevice: {
      HF_TRY(auto file, FileDevice::Open(ToFileOptions(options)));
      return Made(std::move(file));
    }
    case NodeDriver::kNullCo:
      return Made(std::make_unique<NullDevice>(options.node_name, options.size.value_or(kNullSize),
                                               options.read_zeroes,
                                               options.read_only.value_or(false)));
    case NodeDriver::kImage:
      return Fail(Errc::kUnsupported,
                  fmt::format("format={} cannot be below another node", options.format),
                  "qemu-storage-daemon reads it: only virtio-blk-pci can use it.");
    case NodeDriver::kRaw:
      break;
  }
  BlockDevice* child = nullptr;
  if (options.own_child != nullptr) {
    HF_TRY(child, AddNode(*options.own_child));
  } else {
    child = FindNode(options.child);
    if (child == nullptr) {
      return Fail(Errc::kNotFound,
                  fmt::format("Cannot find device='' nor node-name='{}'", options.child),
                  "Describe the node before those that use it.");
    }
    if (InUse(*NodeOf(child))) {
      return Fail(Errc::kInvalidArgument, fmt::format("Node '{}' is used already", options.child));
    }
  }
  children.push_back(child->id());
  if (child->readonly() && options.read_only == false) {
    return Fail(Errc::kInvalidArgument, "Block node is read-only",
                fmt::format("The node '{}' below it is.", child->id()));
  }
  HF_TRY(auto raw, RawDevice::Create(options.node_name, *child, options.offset, options.size,
                                     options.read_only.value_or(false)));
  return Made(std::move(raw));
}

bool BlockGraph::InUse(const Node& node) const noexcept {
  const std::string& name = node.device->id();
  return UsedByImage(name) ||
         std::any_of(drives_.begin(), drives_.end(),
                     [&](const auto& drive) {
                       return drive->medium() == node.device.get() &&
                              (drive->user() != nullptr || !drive->id().empty());
                     }) ||
         std::any_of(nodes_.begin(), nodes_.end(), [&](const auto& parent) {
           const auto& children = parent->children;
           return std::find(children.begin(), children.end(), name) != children.end();
         });
}

Status BlockGraph::RemoveNode(std::string_view name) {
  if (ImageOf(name) != nullptr) return RemoveImage(name);
  const auto found = std::find_if(nodes_.begin(), nodes_.end(),
                                  [&](const auto& node) { return node->device->id() == name; });
  if (found == nodes_.end()) {
    return Fail(Errc::kNotFound, fmt::format("Failed to find node with node-name='{}'", name));
  }
  if ((*found)->internal) {
    return Fail(Errc::kInvalidArgument, fmt::format("Node {} is not owned by the monitor", name));
  }
  if (InUse(**found)) {
    return Fail(Errc::kInvalidArgument, fmt::format("Node {} is in use", name),
                "Remove the device or node that uses it first.");
  }
  Erase(name);
  return {};
}

// With the drive that a device had it by, and the children described in it.
void BlockGraph::Erase(std::string_view name) {
  const auto found = std::find_if(nodes_.begin(), nodes_.end(),
                                  [&](const auto& node) { return node->device->id() == name; });
  if (found == nodes_.end()) return;
  const std::unique_ptr<Node> node = std::move(*found);
  nodes_.erase(found);
  std::erase_if(drives_, [&](const auto& drive) {
    return drive->medium() == node->device.get() && drive->user() == nullptr;
  });
  if (node->options.own_child == nullptr) return;
  node->device.reset();
  for (const std::string& child : node->children) Erase(child);
}

BlockDevice* BlockGraph::FindNode(std::string_view name) const noexcept {
  for (const auto& node : nodes_) {
    if (node->device->id() == name) return node->device.get();
  }
  return nullptr;
}

const BlockGraph::Node* BlockGraph::NodeOf(const BlockDevice* device) const noexcept {
  for (const auto& node : nodes_) {
    if (node->device.get() == device) return node.get();
  }
  return nullptr;
}

Result<Drive*> BlockGraph::AddDrive(std::string id, BlockDevice* medium) {
  if (!id.empty()) {
    const auto same = [&](const auto& drive) { return drive->id() == id; };
    if (std::any_of(drives_.begin(), drives_.end(), same) || ImageOf(id) != nullptr) {
      return Fail(Errc::kInvalidArgument, fmt::format("Device with id '{}' already exists", id),
                  "Give each -drive its own id.");
    }
    if (FindNode(id) != nullptr) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("Device name '{}' conflicts with an existing node name", id));
    }
  }
  auto drive = std::make_unique<Drive>(
      std::move(id), medium,
      [this](Drive& which, Operation operation, int error, block::OnError outcome) {
        OnError(which, operation, error, outcome);
      });
  if (const Node* const node = NodeOf(medium)) {
    drive->detect_zeroes = node->options.detect_zeroes;
  }
  drive->set_active(active_);
  drives_.push_back(std::move(drive));
  return drives_.back().get();
}

Drive* BlockGraph::Find(std::string_view id_or_node) {
  if (id_or_node.empty()) return nullptr;
  for (const auto& drive : drives_) {
    if (drive->id() == id_or_node) return drive.get();
  }
  BlockDevice* const node = FindNode(id_or_node);
  if (node == nullptr) return nullptr;
  for (const auto& drive : drives_) {
    if (drive->id().empty() && drive->medium() == node) return drive.get();
  }
  auto made = AddDrive({}, node);
  return made ? *made : nullptr;
}

Drive* BlockGraph::Lookup(std::string_view name) const noexcept {
  if (name.empty()) return nullptr;
  for (const auto& drive : drives_) {
    if (drive->id() == name) return drive.get();
    if (drive->user() != nullptr && drive->user()->name == name) return drive.get();
    if (drive->medium() != nullptr && drive->medium()->id() == name) return drive.get();
  }
  return nullptr;
}

void BlockGraph::DropMedium(BlockDevice* medium) {
  const Node* const node = NodeOf(medium);
  if (node == nullptr || !node->internal || InUse(*node)) return;
  Erase(std::string(medium->id()));
}

// Any thread; the main thread goes on.
void BlockGraph::OnError(const Drive& drive, Operation operation, int error,
                         block::OnError outcome) {
  loop_.Post([shared = shared_, &drive, operation, error, outcome] {
    BlockGraph* const graph = shared->graph;
    if (graph == nullptr) return;
    const auto known = std::any_of(graph->drives_.begin(), graph->drives_.end(),
                                   [&](const auto& each) { return each.get() == &drive; });
    if (!known) return;
    nlohmann::json data = {
        {"qom-path", drive.user() == nullptr ? std::string() : drive.user()->name},
        {"device", drive.id()},
        {"operation", operation == Operation::kRead ? "read" : "write"},
        {"action", OnErrorName(outcome)},
        {"nospace", error == ENOSPC},
        {"reason", std::strerror(error)}};
    if (drive.medium() != nullptr) data["node-name"] = drive.medium()->id();
    if (graph->hooks_.emit) graph->hooks_.emit("BLOCK_IO_ERROR", data);
    if (outcome == block::OnError::kStop && graph->hooks_.stop_for_io_error) {
      graph->hooks_.stop_for_io_error();
    }
  });
}

}  // namespace holdfast::devices::block
