// SPDX-License-Identifier: Apache-2.0
#include "devices/socket_chardev.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>

#include <utility>

#include "base/log.h"

namespace holdfast::devices {

Result<std::unique_ptr<Chardev>> SocketChardev::Create(EventLoop& loop, SocketSpec spec) {
  std::unique_ptr<SocketChardev> chardev(new SocketChardev(loop, std::move(spec)));
  HF_TRY_STATUS(chardev->Start());
  const SocketSpec& wanted = chardev->spec_;
  if (wanted.server) {
    HF_TRY(ListeningSocket listener, ListeningSocket::Create(wanted.address, 1));
    chardev->listener_.emplace(std::move(listener));
  }
  if (wanted.server && !wanted.wait) {
    HF_TRY_STATUS(chardev->WatchListener());
    return chardev;
  }
  auto peer = wanted.server ? chardev->listener_->WaitForClient() : ConnectSocket(wanted.address);
  if (!peer && wanted.reconnect) {
    chardev->ReconnectLater();
    return chardev;
  }
  HF_TRY(chardev->peer_, std::move(peer));
  HF_TRY_STATUS(chardev->Connect(chardev->peer_.get(), chardev->peer_.get()));
  return chardev;
}

SocketChardev::~SocketChardev() {
  Disconnect();
  if (watching_) loop().RemoveFd(listener_->fd());
  if (retry_) loop().CancelTimer(*retry_);
}

Result<SocketChardev::Handover> SocketChardev::HandOver() {
  if (!lease_.expired()) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("the socket '{}' is in use", spec_.address.Describe()),
                "Give each user a -chardev of its own.");
  }
  UniqueFd listener;
  if (listener_) {
    listener.reset(::fcntl(listener_->fd(), F_DUPFD_CLOEXEC, 0));
    if (!listener) return FailErrno("fcntl");
  }
  Disconnect();
  if (std::exchange(watching_, false)) loop().RemoveFd(listener_->fd());
  if (retry_) loop().CancelTimer(*retry_);
  retry_.reset();
  given_away_ = true;
  auto lease = std::make_shared<int>(0);
  lease_ = lease;
  return Handover{.address = spec_.address,
                  .reconnect = spec_.reconnect,
                  .connection = std::exchange(peer_, UniqueFd()),
                  .listener = std::move(listener),
                  .lease = std::move(lease)};
}

void SocketChardev::ReconnectLater() {
  if (retry_ || given_away_) return;
  retry_ = loop().AddTimer(EventLoop::Clock::now() + *spec_.reconnect, [this] {
    retry_.reset();
    auto peer = ConnectSocket(spec_.address);
    if (peer) peer_ = *std::move(peer);
    if (!peer_ || !Connect(peer_.get(), peer_.get())) DropPeer();
  });
}

Status SocketChardev::WatchListener() {
  HF_TRY_STATUS(
      loop().AddFd(listener_->fd(), EPOLLIN, [this](std::uint32_t /*events*/) { OnClient(); }));
  watching_ = true;
  return {};
}

void SocketChardev::OnClient() {
  // There is one, or there was: a client that has gone again is accepted and then hung up.
  UniqueFd client = listener_->Accept();
  if (!client) return;
  loop().RemoveFd(listener_->fd());
  watching_ = false;
  peer_ = std::move(client);
  if (const Status connected = Connect(peer_.get(), peer_.get()); !connected) {
    log::Warn(fmt::format("{}: {}", Describe(), connected.error().message()));
    DropPeer();
  }
}

void SocketChardev::OnInputEnd() {
  DrainOutput();  // a client may have shut down only its sending half
  if (peer_) DropPeer();
}

void SocketChardev::OnOutputError(int /*os_errno*/) {
  DropPeer();
}

void SocketChardev::DropPeer() {
  Disconnect();
  peer_.reset();
  if (spec_.reconnect) ReconnectLater();
  if (!listener_ || watching_) return;
  if (const Status watched = WatchListener(); !watched)
    log::Warn(fmt::format("{}: no further clients: {}", Describe(), watched.error().message()));
}

std::string SocketChardev::Describe() const {
  const SocketAddress& address = listener_ ? listener_->address() : spec_.address;
  return fmt::format("{}{}{}", peer_ || given_away_ ? "" : "disconnected:", address.Describe(),
                     spec_.server ? ",server=on" : "");
}

}  // namespace holdfast::devices
