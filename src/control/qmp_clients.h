// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>

#include <holdfast/unique_fd.h>

#include "control/qmp_server.h"
#include "control/qmp_session.h"

namespace holdfast::control {

/// A client at the other end of a socket.
///
/// The socket is watched edge-triggered: a client that has gone wakes the loop once. Whatever
/// happens ends in Work(), which does a little and posts itself if there is more, so that a busy
/// client cannot keep others waiting.
class QmpServer::SocketClient final : public QmpServer::Client,
                                      public std::enable_shared_from_this<SocketClient> {
 public:
  /// `vm` outlives the client, `gone` is called from the loop when the conversation is over.
  static Result<std::shared_ptr<Client>> Create(EventLoop& loop, VmContext& vm, UniqueFd socket,
                                                bool pretty,
                                                std::function<void(const Client*)> gone);
  SocketClient(const SocketClient&) = delete;
  SocketClient& operator=(const SocketClient&) = delete;
  ~SocketClient() override;

  void Emit(const Json& event) override;
  bool Drain() override;
  void WaitForRoom(int milliseconds) override;

 private:
  SocketClient(EventLoop& loop, VmContext& vm, UniqueFd socket, bool pretty,
               std::function<void(const Client*)> gone);
  Status Start();
  void OnEvents(std::uint32_t events);
  void PostWork();
  void Work();
  bool TakeInput();
  bool Receive();
  void Close();

  EventLoop& loop_;
  UniqueFd socket_;
  std::function<void(const Client*)> gone_;
  QmpSession session_;
  std::string input_;  // received, but not yet taken by the session
  bool readable_ = true;
  bool writable_ = true;
  bool ended_ = false;  // the client's sending half is closed
  bool closed_ = false;
};

/// A client at the far end of a chardev. It never goes.
class QmpServer::ChardevClient final : public QmpServer::Client,
                                       public std::enable_shared_from_this<ChardevClient> {
 public:
  static std::shared_ptr<Client> Create(EventLoop& loop, VmContext& vm, devices::Chardev& front,
                                        bool pretty);
  ChardevClient(const ChardevClient&) = delete;
  ChardevClient& operator=(const ChardevClient&) = delete;
  /// Gives the chardev back: no receiver, no callback.
  ~ChardevClient() override;

  void Emit(const Json& event) override;
  bool Drain() override;
  void WaitForRoom(int milliseconds) override;

 private:
  ChardevClient(EventLoop& loop, VmContext& vm, devices::Chardev& front, bool pretty)
      : loop_(loop), front_(front), session_(vm, {.pretty = pretty}) {}
  void Work();

  EventLoop& loop_;
  devices::Chardev& front_;
  QmpSession session_;
};

}  // namespace holdfast::control
