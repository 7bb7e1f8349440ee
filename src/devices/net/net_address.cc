// SPDX-License-Identifier: Apache-2.0
#include "devices/net/net_address.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <sys/un.h>

#include <cstring>
#include <memory>

namespace holdfast::devices::net {

std::string NetAddress::Describe() const {
  return fd ? fmt::format("fd:{}", *fd) : socket.Describe();
}

Result<KernelAddress> ResolveAddress(const SocketAddress& address, int type) {
  KernelAddress found;
  if (!address.path.empty()) {
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    if (address.path.size() >= sizeof name.sun_path) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("UNIX socket path '{}' is too long", address.path),
                  fmt::format("It may have at most {} bytes.", sizeof name.sun_path - 1));
    }
    std::memcpy(name.sun_path, address.path.data(), address.path.size());
    std::memcpy(&found.storage, &name, sizeof name);
    found.size = sizeof name;
    return found;
  }
  addrinfo hints{};
  hints.ai_socktype = type;
  addrinfo* list = nullptr;
  const std::string host = address.host.empty() ? "127.0.0.1" : address.host;
  const int failed = ::getaddrinfo(host.c_str(), address.port.c_str(), &hints, &list);
  if (failed != 0) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("address resolution failed for {}:{}: {}", host, address.port,
                            ::gai_strerror(failed)),
                "Write a name or address, and a port number.");
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(list, &::freeaddrinfo);
  std::memcpy(&found.storage, list->ai_addr, list->ai_addrlen);
  found.size = list->ai_addrlen;
  return found;
}

Result<UniqueFd> InheritSocket(int fd, int type) {
  int is = 0;
  socklen_t size = sizeof is;
  if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &is, &size) != 0 || is != type) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("file descriptor {} is no {} socket", fd,
                            type == SOCK_STREAM ? "stream" : "datagram"),
                "Start holdfast with such a socket open under this number.");
  }
  if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return FailErrno("fcntl");
  return UniqueFd(fd);
}

}  // namespace holdfast::devices::net
