// SPDX-License-Identifier: Apache-2.0
// The part of BlockGraph that is about images which qemu-storage-daemon serves.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "devices/block/block_graph.h"
#include "devices/block/storage_daemon.h"

namespace holdfast::devices::block {
namespace {

Error NoNode(std::string_view name) {
  return {Errc::kNotFound, fmt::format("Cannot find device='' nor node-name='{}'", name),
          "Describe the node before those that use it."};
}

}  // namespace

void BlockGraph::set_image_settings(ImageSettings settings) {
  image_settings_ = std::move(settings);
}

// The daemon knows none of our nodes: each name becomes what it stands for.
Result<NodeOptions> BlockGraph::Describe(const NodeOptions& options,
                                         std::vector<std::string>& names) const {
  NodeOptions described = options;
  const auto inner = [&](std::string& name, std::shared_ptr<NodeOptions>& own) -> Status {
    if (own != nullptr) {
      HF_TRY(NodeOptions whole, Describe(*own, names));
      own = std::make_shared<NodeOptions>(std::move(whole));
    } else if (!name.empty()) {
      HF_TRY(NodeOptions whole, DescribeNamed(name, names));
      own = std::make_shared<NodeOptions>(std::move(whole));
      names.push_back(std::exchange(name, {}));
    }
    return {};
  };
  HF_TRY_STATUS(inner(described.child, described.own_child));
  HF_TRY_STATUS(inner(described.backing, described.own_backing));
  return described;
}

Result<NodeOptions> BlockGraph::DescribeNamed(std::string_view name,
                                              std::vector<std::string>& names) const {
  if (const Image* const image = ImageOf(name)) return image->daemon->config().node;
  const BlockDevice* const device = FindNode(name);
  if (device == nullptr) return Fail(NoNode(name));
  return Describe(NodeOf(device)->options, names);
}

Status BlockGraph::AddBlockdev(const NodeOptions& options) {
  if (options.driver != NodeDriver::kImage) {
    HF_TRY_STATUS(AddNode(options));
    return {};
  }
  HF_TRY_STATUS(AddImage(options.node_name, options, false));
  images_.back()->node = true;
  return {};
}

Result<StorageDaemon*> BlockGraph::AddImage(std::string id, const NodeOptions& options,
                                            bool snapshot) {
  if (Lookup(id) != nullptr || (ImageOf(id) != nullptr && !ImageOf(id)->node)) {
    return Fail(Errc::kInvalidArgument, fmt::format("Device with id '{}' already exists", id),
                "Give each -drive its own id.");
  }
  HF_TRY_STATUS(CheckName(id));
  auto image = std::make_unique<Image>();
  StorageDaemon::Config config{.node = {},
                               .snapshot = snapshot,
                               .queues = image_settings_.queues,
                               .user = image_settings_.user};
  HF_TRY(config.node, Describe(options, image->children));
  config.node.node_name = id;
  if (snapshot && images_frozen_) {
    return Fail(Errc::kPermission, "qemu-img is started neither in the sandbox nor in a new root");
  }
  HF_TRY(image->daemon, StorageDaemon::Create(std::move(config)));
  if (images_frozen_) image->daemon->Freeze();
  image->id = std::move(id);
  images_.push_back(std::move(image));
  return images_.back()->daemon.get();
}

const BlockGraph::Image* BlockGraph::ImageOf(std::string_view id) const noexcept {
  const auto found = std::find_if(images_.begin(), images_.end(),
                                  [&](const auto& each) { return each->id == id; });
  return found == images_.end() ? nullptr : found->get();
}

StorageDaemon* BlockGraph::FindImage(std::string_view id) const noexcept {
  const Image* const image = ImageOf(id);
  return image == nullptr ? nullptr : image->daemon.get();
}

bool BlockGraph::UsedByImage(std::string_view node) const noexcept {
  return std::any_of(images_.begin(), images_.end(), [&](const auto& image) {
    const auto& names = image->children;
    return std::find(names.begin(), names.end(), node) != names.end();
  });
}

Status BlockGraph::RemoveImage(std::string_view name) {
  const Image* const image = ImageOf(name);
  if (!image->node) {
    return Fail(Errc::kInvalidArgument, fmt::format("Node {} is not owned by the monitor", name));
  }
  if (image->daemon->used() || UsedByImage(name)) {
    return Fail(Errc::kInvalidArgument, fmt::format("Node {} is in use", name),
                "Remove the device or node that uses it first.");
  }
  std::erase_if(images_, [&](const auto& each) { return each.get() == image; });
  return {};
}

void BlockGraph::FreezeImages() noexcept {
  for (const auto& image : images_) image->daemon->Freeze();
  images_frozen_ = true;
}

}  // namespace holdfast::devices::block
