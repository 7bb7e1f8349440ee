// SPDX-License-Identifier: Apache-2.0
#include "devices/vhost_user/endpoint.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace holdfast::devices::vhost_user {

Result<UniqueFd> Endpoint::Connect() {
  if (connection_.valid()) return std::exchange(connection_, UniqueFd());
  if (make_) return make_();
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

}  // namespace holdfast::devices::vhost_user
