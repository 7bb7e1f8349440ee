// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "devices/net/net_address.h"
#include "devices/net/net_backend.h"
#include "devices/net/packet_port.h"

namespace holdfast::devices::net {

/// `-netdev dgram`: our own address, and the one that frames go to.
struct DgramConfig {
  std::optional<NetAddress> local = {};
  std::optional<NetAddress> remote = {};  ///< empty only with an inherited socket, which has one
};

/// A datagram socket, Unix or UDP: each datagram is a frame.
///
/// Thread-safety: the thread of the loop it is attached to.
class DgramBackend final : public NetBackend, private PacketPort {
 public:
  /// Binds. A Unix socket's file is made anew and goes with the back end.
  static Result<std::unique_ptr<DgramBackend>> Create(std::string id, DgramConfig config);
  DgramBackend(const DgramBackend&) = delete;
  DgramBackend& operator=(const DgramBackend&) = delete;
  ~DgramBackend() override;

  const std::string& id() const noexcept override { return id_; }
  std::string Describe() const override;
  Status Attach(unsigned pair, EventLoop& loop, Receiver receiver) override;
  void Detach(unsigned pair) override;
  void ReceiverReady(unsigned pair) override;
  bool Send(unsigned pair, std::span<const iovec> header_and_frame) override;
  void SetWritable(unsigned pair, std::function<void()> writable) override;

 private:
  DgramBackend(std::string id, DgramConfig config)
      : id_(std::move(id)), config_(std::move(config)) {}
  Status Open();
  int fd() const noexcept override { return socket_.get(); }
  ssize_t Read(std::span<std::byte> into) override;
  ssize_t Write(std::span<const iovec> header_and_frame) override;

  const std::string id_;
  const DgramConfig config_;
  UniqueFd socket_;
  bool bound_file_ = false;  // the local path is ours to remove
  std::optional<KernelAddress> remote_;
  std::vector<iovec> pieces_;
};

}  // namespace holdfast::devices::net
