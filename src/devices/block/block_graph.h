// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>

#include <nlohmann/json_fwd.hpp>

#include "devices/block/drive.h"
#include "devices/block/image_program.h"
#include "devices/block/node_options.h"

namespace holdfast {
class EventLoop;
}

namespace holdfast::devices::block {

class StorageDaemon;

/// All disks of a virtual machine on the host's side: nodes (what holds the data), by node name,
/// drives (what devices plug into), by id, and images that another program reads, by either.
///
/// Thread-safety: the main thread.
class BlockGraph {
 public:
  /// `loop` is the main thread's and outlives the graph.
  explicit BlockGraph(EventLoop& loop);
  BlockGraph(const BlockGraph&) = delete;
  BlockGraph& operator=(const BlockGraph&) = delete;
  ~BlockGraph();

  /// What the graph asks of the machine, on the main thread. Empty functions: nobody is there.
  struct Hooks {
    std::function<void(std::string_view event, const nlohmann::json& data)> emit;
    std::function<void()> stop_for_io_error;
  };
  void set_hooks(Hooks hooks);
  /// Makes all that guests have written to their disks durable, as far as their images' cache modes
  /// ask for it; for a snapshot that goes with them. While nothing is under way. Waits.
  /// @return the first host's error, with the drive's name; all drives have been tried
  Status FlushAll();
  /// Makes the images another process's business: all is flushed, locks are given up, and requests
  /// are refused until Activate(); images added meanwhile are opened likewise. While nothing is
  /// under way. On a graph without images it only says how those are opened that come: a machine
  /// that waits for its state has no claim to its disks yet.
  /// @return as FlushAll(), and kUnsupported for an image that qemu-storage-daemon serves; then all
  ///         is as it was
  Status Inactivate();
  /// Takes the locks. Nothing if they are held.
  /// @return what is said of the first image that another process has, in QEMU's words; then none
  ///         is locked
  Status Activate();
  bool active() const noexcept { return active_; }
  /// The machine runs on: what an error has stopped is tried again.
  void MachineRuns();

  /// Makes a node and the children described in it. A node without name gets one, `#block1`.
  Result<BlockDevice*> AddNode(const NodeOptions& options);
  /// @return kNotFound, or kInvalidArgument while somebody uses it; in QEMU's words
  Status RemoveNode(std::string_view name);
  BlockDevice* FindNode(std::string_view name) const noexcept;

  /// What `-blockdev` and blockdev-add make: a node, or an image.
  Status AddBlockdev(const NodeOptions& options);

  /// Makes a drive; `medium`, a node or null, is its own from then on.
  Result<Drive*> AddDrive(std::string id, BlockDevice* medium);
  /// The drive of this id, or one for the node of this name; null: there is neither.
  Drive* Find(std::string_view id_or_node);
  /// The same by id, by the device's name, or by node name, making nothing; for commands.
  Drive* Lookup(std::string_view name) const noexcept;

  struct Node {
    std::unique_ptr<BlockDevice> device;
    NodeOptions options;
    std::vector<std::string> children;
    bool internal = false;  ///< made for another node or by -drive: only that removes it
  };
  const std::vector<std::unique_ptr<Node>>& nodes() const noexcept { return nodes_; }
  const std::vector<std::unique_ptr<Drive>>& drives() const noexcept { return drives_; }
  const Node* NodeOf(const BlockDevice* device) const noexcept;
  /// Forgets a medium that no drive has any more, if -drive or a command made it.
  void DropMedium(BlockDevice* medium);

  // Images, block_graph_images.cc.

  /// How images are served that are added from now on.
  struct ImageSettings {
    unsigned queues = 1;
    std::optional<ProgramUser> user;  ///< who reads them; empty: as this process
  };
  void set_image_settings(ImageSettings settings);
  /// Makes an image that qemu-storage-daemon serves; `options` may name nodes there are.
  /// @param snapshot  what the guest writes is forgotten in the end
  Result<StorageDaemon*> AddImage(std::string id, const NodeOptions& options, bool snapshot);
  StorageDaemon* FindImage(std::string_view id) const noexcept;
  /// From now on this process starts no programs.
  void FreezeImages() noexcept;
  struct Image {
    std::string id;  ///< a drive's or a node's
    bool node = false;
    std::vector<std::string> children;  ///< nodes it uses by their names
    std::unique_ptr<StorageDaemon> daemon;
  };
  const std::vector<std::unique_ptr<Image>>& images() const noexcept { return images_; }

 private:
  Result<NodeOptions> Describe(const NodeOptions& options, std::vector<std::string>& names) const;
  Result<NodeOptions> DescribeNamed(std::string_view name, std::vector<std::string>& names) const;
  const Image* ImageOf(std::string_view id) const noexcept;
  bool UsedByImage(std::string_view node) const noexcept;
  Status RemoveImage(std::string_view name);
  Result<std::unique_ptr<BlockDevice>> Open(const NodeOptions& options,
                                            std::vector<std::string>& children);
  Status CheckName(std::string_view name) const;
  bool InUse(const Node& node) const noexcept;
  void Erase(std::string_view name);
  void OnError(const Drive& drive, Operation operation, int error, OnError outcome);

  struct Shared;  // what posted work may still find when the graph is gone
  EventLoop& loop_;
  Hooks hooks_;
  std::shared_ptr<Shared> shared_;
  unsigned next_name_ = 1;
  bool active_ = true;
  std::vector<std::unique_ptr<Node>> nodes_;  // children before their parents
  std::vector<std::unique_ptr<Drive>> drives_;
  ImageSettings image_settings_;
  bool images_frozen_ = false;
  std::vector<std::unique_ptr<Image>> images_;
};

}  // namespace holdfast::devices::block
