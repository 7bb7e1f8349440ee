// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

namespace holdfast::devices {

/// Where a stream socket is: a path in the file system, or host and port.
struct SocketAddress {
  std::string path = {};  ///< a Unix socket, if not empty
  std::string host = {};  ///< a name or a number; empty: this machine only (127.0.0.1)
  std::string port = {};  ///< a number or a service's name; "0": any that is free

  /// "unix:PATH" or "tcp:HOST:PORT".
  std::string Describe() const;
};

/// What QEMU's socket words and `-chardev socket` say.
struct SocketSpec {
  SocketAddress address = {};
  bool server = false;
  bool wait = false;  ///< server: the guest does not start before the first client has come
  /// Client: how long after losing its server it looks for it again; empty: never.
  std::optional<std::chrono::milliseconds> reconnect = {};
};

/// Reads `unix:PATH[,server=on|off][,wait=on|off]` or `tcp:[HOST]:PORT[,…]`.
/// @return empty for a word of another kind; an error that names the word
Result<std::optional<SocketSpec>> ParseSocketWord(std::string_view word);

/// Splits "HOST:PORT"; an IPv6 address stands in brackets. Empty where it is neither.
std::optional<SocketAddress> ParseHostPort(std::string_view text);

/// A socket that clients connect to. Its file, if it is a Unix one, goes with it.
class ListeningSocket {
 public:
  /// A socket file at the path that nobody listens on any more is replaced; one in use, or another
  /// kind of file, is an error. A path that is longer than a socket's can be is one, too.
  static Result<ListeningSocket> Create(const SocketAddress& address, int backlog);
  ListeningSocket(ListeningSocket&& other) noexcept;
  ListeningSocket& operator=(ListeningSocket&&) = delete;
  ListeningSocket(const ListeningSocket&) = delete;
  ListeningSocket& operator=(const ListeningSocket&) = delete;
  ~ListeningSocket();

  int fd() const noexcept { return fd_.get(); }
  /// With the port that was chosen, where any would do.
  const SocketAddress& address() const noexcept { return address_; }
  /// The next client; null if there is none just now (the socket does not block), or it has gone.
  UniqueFd Accept() const noexcept;
  /// Waits for the next client. SIGINT and SIGTERM, which this program otherwise blocks, end the
  /// process meanwhile.
  Result<UniqueFd> WaitForClient() const;

 private:
  ListeningSocket(UniqueFd fd, SocketAddress address)
      : fd_(std::move(fd)), address_(std::move(address)) {}

  UniqueFd fd_;
  SocketAddress address_;
  dev_t device_ = 0;  // of the socket in the file system
  ino_t inode_ = 0;
};

/// Connects to a server.
Result<UniqueFd> ConnectSocket(const SocketAddress& address);

}  // namespace holdfast::devices
