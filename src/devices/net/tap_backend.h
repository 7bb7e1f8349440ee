// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "devices/net/net_backend.h"

namespace holdfast::devices::net {

/// `-netdev tap`.
struct TapConfig {
  std::string name = {};      ///< ifname=; empty: the kernel chooses
  std::vector<int> fds = {};  ///< fd=, fds=: queues that the process was started with
  /// Queues of the monitor whose place this one takes: in use instead of all others, and no script
  /// is run for them. Owned from Create() on.
  std::vector<int> inherited = {};
  unsigned queues = 1;           ///< without fds
  std::string script = {};       ///< run with the name when it is there; empty: none
  std::string down_script = {};  ///< likewise, before it goes
  bool script_optional = false;  ///< nothing is run where there is no such file
  bool down_script_optional = false;
  bool vhost = false;               ///< the kernel carries the frames (vhost-net)
  std::vector<int> vhost_fds = {};  ///< vhostfd=, vhostfds=: an open /dev/vhost-net a queue
};

/// A network interface of the host (tun(4)), whose other end the guest is. Offloads travel in the
/// headers, so that large segments cross uncut.
///
/// Thread-safety: one queue pair is one thread's.
class TapBackend final : public NetBackend {
 public:
  static Result<std::unique_ptr<TapBackend>> Create(std::string id, TapConfig config);
  TapBackend(const TapBackend&) = delete;
  TapBackend& operator=(const TapBackend&) = delete;
  ~TapBackend() override;

  const std::string& id() const noexcept override { return id_; }
  std::string Describe() const override;
  unsigned queue_pairs() const noexcept override;
  std::uint64_t offloads() const noexcept override { return offloads_; }
  Status SetOffloads(std::uint64_t features) override;
  Status Attach(unsigned pair, EventLoop& loop, Receiver receiver) override;
  void Detach(unsigned pair) override;
  void ReceiverReady(unsigned pair) override;
  bool Send(unsigned pair, std::span<const iovec> header_and_frame) override;
  void SetWritable(unsigned pair, std::function<void()> writable) override;
  vhost::KernelVhost* vhost(unsigned pair) const noexcept override;
  int AttachKernel(unsigned pair) noexcept override;

  /// The host's end of a queue pair: a descriptor that can be another monitor's.
  int queue_fd(unsigned pair) const noexcept;
  /// The interface's name.
  const std::string& interface() const noexcept { return name_; }

 private:
  class Port;
  TapBackend(std::string id, TapConfig config);
  Status Open();
  Status AddQueue();
  Status TakeQueue(int fd);
  Status Prepare(UniqueFd queue);
  Result<std::unique_ptr<vhost::KernelVhost>> OpenVhost(std::size_t queue) const;
  void UseQueue(unsigned pair, bool use) const noexcept;
  Status RunScript(const std::string& path) const;

  const std::string id_;
  const TapConfig config_;
  std::string name_;
  std::uint64_t offloads_ = 0;
  bool up_ = false;  // the script has run
  std::vector<std::unique_ptr<Port>> ports_;
};

}  // namespace holdfast::devices::net
