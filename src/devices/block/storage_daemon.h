// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "devices/block/image_program.h"
#include "devices/block/nbd_flusher.h"
#include "devices/block/node_options.h"
#include "devices/vhost_user/endpoint.h"

namespace holdfast::devices::block {

/// The distribution's qemu-storage-daemon with one image of a format that is not read here, such as
/// qcow2, or with an image that is to stay as it is. It serves a disk over vhost-user-blk; another
/// one takes its place should it die. It ends with this object and with this process.
///
/// Thread-safety: the main thread.
class StorageDaemon {
 public:
  struct Config {
    /// The image, with all nodes below described in it: none by its name.
    NodeOptions node;
    /// What the guest writes goes into a temporary layer, a qcow2 image without a name, and is
    /// forgotten with this object.
    bool snapshot = false;
    unsigned queues = 1;
    std::optional<ProgramUser> user;  ///< who reads the image; empty: as this process
    // Looked for in PATH, if without a slash.
    std::string program = "qemu-storage-daemon";
    std::string image_tool = "qemu-img";
  };
  /// @return why there is no temporary layer
  static Result<std::unique_ptr<StorageDaemon>> Create(Config config);
  StorageDaemon(const StorageDaemon&) = delete;
  StorageDaemon& operator=(const StorageDaemon&) = delete;
  /// Waits until the image is closed.
  ~StorageDaemon();

  const Config& config() const noexcept { return config_; }
  /// What the guest sees: "qcow2"; "raw" only with a snapshot.
  std::string format() const;
  const std::string& filename() const noexcept { return FileOf(config_.node).filename; }
  bool readonly() const noexcept {
    return !config_.snapshot && config_.node.read_only.value_or(false);
  }
  /// Whether an endpoint is in use.
  bool used() const noexcept { return !user_.expired(); }
  /// For one device at a time, which goes before this does. Connecting starts the daemon.
  /// @return kInvalidArgument in QEMU's words if there is a device already
  Result<vhost_user::Endpoint> endpoint();
  /// What the device that uses it is and found, for those who list disks; forgotten with it.
  struct Plugged {
    std::string device;      ///< qdev path, perhaps empty
    std::uint64_t size = 0;  ///< bytes
  };
  void set_plugged(Plugged plugged) { plugged_ = std::move(plugged); }
  Plugged plugged() const { return used() ? plugged_ : Plugged{}; }
  /// Makes all that the guest was told is written durable, as far as the image's cache mode asks
  /// for it. Waits. Nothing where nobody has it for writing.
  /// @return the daemon's error, and kSystem where it is gone or does not answer
  Status Flush();
  /// From now on no other takes the place of one that dies: this process may start no programs.
  void Freeze() noexcept { *frozen_ = true; }
  /// Puts why there is no connection into words: what the daemon had to say stands on standard
  /// error already.
  Error Explain(Error error);

 private:
  explicit StorageDaemon(Config config) : config_(std::move(config)) {}
  Status MakeLayer();
  Result<UniqueFd> Connect();
  Status Spawn(const UniqueFd& listener, const UniqueFd& flush_listener);
  bool needs_flush() const noexcept { return !readonly() && !config_.snapshot; }
  std::vector<std::string> Arguments() const;
  void End() noexcept;

  const Config config_;
  std::shared_ptr<bool> frozen_ = std::make_shared<bool>(false);
  std::weak_ptr<int> user_;
  Plugged plugged_;
  // With a snapshot: the layer, and the file below it, locked.
  UniqueFd layer_;
  UniqueFd base_;
  pid_t pid_ = -1;
  UniqueFd process_;                                // pidfd
  std::optional<Result<NbdFlusher>> flusher_ = {};  // of this daemon, or why it has none
};

}  // namespace holdfast::devices::block
