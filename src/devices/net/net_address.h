// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/socket.h>

#include <optional>
#include <string>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "devices/stream_socket.h"

namespace holdfast::devices::net {

/// What `addr.type=…`, `local.type=…` and `remote.type=…` describe: a Unix socket, host and port,
/// or a descriptor that the process was started with.
struct NetAddress {
  SocketAddress socket = {};
  std::optional<int> fd = {};

  /// "unix:PATH", "tcp:HOST:PORT", "fd:3".
  std::string Describe() const;
};

/// A socket address of the kernel.
struct KernelAddress {
  sockaddr_storage storage = {};
  socklen_t size = 0;
  const sockaddr* get() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
};

/// Looks names up, which may wait for a name server. @param type  SOCK_STREAM or SOCK_DGRAM
Result<KernelAddress> ResolveAddress(const SocketAddress& address, int type);

/// Takes over a socket that the process was started with, close-on-exec from now on.
/// @return kInvalidArgument if it is no socket of this type
Result<UniqueFd> InheritSocket(int fd, int type);

}  // namespace holdfast::devices::net
