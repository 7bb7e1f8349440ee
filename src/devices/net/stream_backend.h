// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>
#include <nlohmann/json_fwd.hpp>

#include "base/event_loop.h"
#include "devices/net/net_address.h"
#include "devices/net/net_backend.h"
#include "devices/stream_socket.h"

namespace holdfast::devices::net {

/// `-netdev stream`: where it is, and who waits for whom.
struct StreamConfig {
  NetAddress address = {};
  bool server = false;
  /// A client tries again this long after its server has gone or was not there; 0: never.
  std::chrono::milliseconds reconnect{0};
};

/// A stream socket to another virtual machine or a switch. Each frame goes behind its length, four
/// bytes, the highest first, as QEMU writes them. Without a peer, frames are dropped. The peer is
/// not trusted: one that announces a frame larger than there can be is hung up on.
///
/// Thread-safety: the loop's thread.
class StreamBackend final : public NetBackend {
 public:
  /// A server listens; a client connects, waiting for the server's answer unless `reconnect` lets
  /// it go on without.
  static Result<std::unique_ptr<StreamBackend>> Create(EventLoop& loop, std::string id,
                                                       StreamConfig config, EmitEvent emit);
  StreamBackend(const StreamBackend&) = delete;
  StreamBackend& operator=(const StreamBackend&) = delete;
  ~StreamBackend() override;

  const std::string& id() const noexcept override { return id_; }
  std::string Describe() const override;
  Status Attach(unsigned pair, EventLoop& loop, Receiver receiver) override;
  void Detach(unsigned pair) override;
  void ReceiverReady(unsigned pair) override;
  bool Send(unsigned pair, std::span<const iovec> header_and_frame) override;
  void SetWritable(unsigned pair, std::function<void()> writable) override;

  bool connected() const noexcept { return connected_; }

 private:
  StreamBackend(EventLoop& loop, std::string id, StreamConfig config, EmitEvent emit);
  Status Start();
  Status WatchListener();
  void TryToConnect();
  void TryLater();
  void OnConnectResult();
  Status TakePeer(UniqueFd peer);
  void OnEvents(std::uint32_t events);
  void Read();
  void DeliverAll();
  bool Offer(std::span<const std::byte> frame);
  void FlushOutput();
  void UpdateEvents();
  void DropPeer();

  EventLoop& loop_;
  const std::string id_;
  const StreamConfig config_;
  const EmitEvent emit_;
  std::optional<ListeningSocket> listener_;
  bool listening_ = false;  // the listener is watched; only without a peer
  KernelAddress server_;    // of a client that reconnects
  UniqueFd peer_;
  bool connected_ = false;  // otherwise peer_, if any, is on its way
  std::uint32_t events_ = 0;
  EventLoop::TimerId retry_ = 0;

  Receiver receiver_;
  std::function<void()> writable_;
  std::vector<std::byte> input_;  // [input_begin_, input_end_) has been read and not delivered
  std::size_t input_begin_ = 0;
  std::size_t input_end_ = 0;
  bool receiver_full_ = false;
  std::vector<std::byte> output_;  // the end of a frame whose beginning is sent
  std::size_t output_begin_ = 0;
  bool wants_writable_ = false;
  std::vector<iovec> pieces_;
};

}  // namespace holdfast::devices::net
