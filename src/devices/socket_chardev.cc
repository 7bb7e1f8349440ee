// SPDX-License-Identifier: Apache-2.0
#include "devices/socket_chardev.h"

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
  HF_TRY(chardev->peer_,
         wanted.server ? chardev->listener_->WaitForClient() : ConnectSocket(wanted.address));
  HF_TRY_STATUS(chardev->Connect(chardev->peer_.get(), chardev->peer_.get()));
  return chardev;
}

SocketChardev::~SocketChardev() {
  Disconnect();
  if (watching_) loop().RemoveFd(listener_->fd());
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
  if (!listener_ || watching_) return;
  if (const Status watched = WatchListener(); !watched)
    log::Warn(fmt::format("{}: no further clients: {}", Describe(), watched.error().message()));
}

std::string SocketChardev::Describe() const {
  const SocketAddress& address = listener_ ? listener_->address() : spec_.address;
  return fmt::format("{}{}{}", peer_ ? "" : "disconnected:", address.Describe(),
                     spec_.server ? ",server=on" : "");
}

}  // namespace holdfast::devices
