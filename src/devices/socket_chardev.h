// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "devices/fd_chardev.h"
#include "devices/stream_socket.h"

namespace holdfast::devices {

/// A stream socket (Unix or TCP), as its server or as a client.
///
/// A server has one client at a time, further ones wait in the queue, and a new one may come when
/// the old one has gone. Output without client is dropped. A client that loses its server, or finds
/// none at first, looks for it again if the spec says so, and else stays without one.
class SocketChardev final : public FdChardev {
 public:
  static Result<std::unique_ptr<Chardev>> Create(EventLoop& loop, SocketSpec spec);
  SocketChardev(const SocketChardev&) = delete;
  SocketChardev& operator=(const SocketChardev&) = delete;
  ~SocketChardev() override;

  std::string Describe() const override;

  /// What somebody gets who speaks a protocol of its own with the other side.
  struct Handover {
    SocketAddress address;
    std::optional<std::chrono::milliseconds> reconnect;
    UniqueFd connection;          ///< invalid: there is none yet
    UniqueFd listener;            ///< of a server: where the next client comes in
    std::shared_ptr<void> lease;  ///< as long as it lives, nobody else gets it
  };
  /// Gives the connection away; from then on this reads and writes nothing.
  /// @return kInvalidArgument while it is given away already
  Result<Handover> HandOver();

 private:
  SocketChardev(EventLoop& loop, SocketSpec spec) : FdChardev(loop), spec_(std::move(spec)) {}
  Status WatchListener();
  void OnClient();
  void OnInputEnd() override;
  void OnOutputError(int os_errno) override;
  void DropPeer();
  void ReconnectLater();

  const SocketSpec spec_;
  std::optional<ListeningSocket> listener_;
  UniqueFd peer_;
  bool watching_ = false;  // the listener; only without a client
  std::optional<EventLoop::TimerId> retry_;
  bool given_away_ = false;
  std::weak_ptr<void> lease_;
};

}  // namespace holdfast::devices
