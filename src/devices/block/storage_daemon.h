// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "devices/block/node_options.h"
#include "devices/vhost_user/endpoint.h"

namespace holdfast::devices::block {

/// The distribution's qemu-storage-daemon with one image of a format that is not read here, such as
/// qcow2. It serves a disk over vhost-user-blk; another one takes its place should it die. It ends
/// with this object and with this process.
///
/// Thread-safety: the main thread.
class StorageDaemon {
 public:
  struct Config {
    NodeOptions node;    ///< the file, as for a raw image
    std::string format;  ///< a block driver of QEMU
    unsigned queues = 1;
    std::string program = "qemu-storage-daemon";  ///< looked for in PATH, if without a slash
  };
  explicit StorageDaemon(Config config) : config_(std::move(config)) {}
  StorageDaemon(const StorageDaemon&) = delete;
  StorageDaemon& operator=(const StorageDaemon&) = delete;
  /// Waits until the image is closed.
  ~StorageDaemon();

  const Config& config() const noexcept { return config_; }
  /// For the one device that uses it, which goes before this does. Connecting starts the daemon.
  vhost_user::Endpoint endpoint();
  /// From now on no other takes the place of one that dies: this process may start no programs.
  void Freeze() noexcept { *frozen_ = true; }
  /// Puts why there is no connection into words: what the daemon had to say stands on standard
  /// error already.
  Error Explain(Error error);

 private:
  Result<UniqueFd> Start();
  Status Spawn(const UniqueFd& listener);
  std::vector<std::string> Arguments() const;
  void End() noexcept;

  const Config config_;
  std::shared_ptr<bool> frozen_ = std::make_shared<bool>(false);
  pid_t pid_ = -1;
  UniqueFd process_;  // pidfd
};

/// Whether a format is one that the daemon reads.
bool IsImageFormat(std::string_view format) noexcept;

}  // namespace holdfast::devices::block
