// SPDX-License-Identifier: Apache-2.0
#include "devices/vhost_user/endpoint.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "devices/socket_chardev.h"

namespace holdfast::devices::vhost_user {

Result<UniqueFd> Endpoint::Connect() {
  if (connection_.valid()) return std::exchange(connection_, UniqueFd());
  if (make_) return make_();
  if (listener_.valid()) {
    UniqueFd client(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (client) return client;
    return Fail(Errc::kSystem,
                fmt::format("no vhost-user back end has connected to '{}' yet", path_),
                "Start it first, or let the chardev wait for it with wait=on.");
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path_.size() >= sizeof address.sun_path) {
    return Fail(Errc::kInvalidArgument, fmt::format("UNIX socket path '{}' is too long", path_),
                fmt::format("It may have at most {} bytes.", sizeof address.sun_path - 1));
  }
  std::memcpy(address.sun_path, path_.data(), path_.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return FailErrno("socket");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return Fail(Error::FromErrno(
                    fmt::format("cannot connect to the vhost-user back end at '{}'", path_), errno)
                    .WithHint("Start the back end first."));
  }
  return fd;
}

Result<Endpoint> TakeOver(Chardev& chardev, std::string_view id, std::string_view user) {
  auto* const socket = dynamic_cast<SocketChardev*>(&chardev);
  if (socket == nullptr) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("{}: the chardev '{}' is not a socket", user, id),
                "A vhost-user back end listens on a Unix socket.");
  }
  HF_TRY(SocketChardev::Handover handover, socket->HandOver());
  if (handover.address.path.empty()) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("{}: the chardev '{}' is not a Unix socket", user, id),
                "Memory can be shared with processes of this host only: write path=PATH.");
  }
  if (handover.listener.valid()) {
    return Endpoint(handover.address.path, std::move(handover.listener),
                    std::move(handover.connection), std::move(handover.lease));
  }
  return Endpoint(handover.address.path, handover.reconnect, std::move(handover.connection),
                  std::move(handover.lease));
}

}  // namespace holdfast::devices::vhost_user
