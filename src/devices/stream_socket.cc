// SPDX-License-Identifier: Apache-2.0
#include "devices/stream_socket.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "base/log.h"

namespace holdfast::devices {
namespace {

constexpr std::string_view kLoopback = "127.0.0.1";

Result<sockaddr_un> UnixAddress(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return Fail(Errc::kInvalidArgument, fmt::format("UNIX socket path '{}' is too long", path),
                fmt::format("It may have at most {} bytes.", sizeof address.sun_path - 1));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

const sockaddr* Generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

int ConnectRetrying(int fd, const sockaddr* address, socklen_t size) {
  int result = 0;
  do {
    result = ::connect(fd, address, size);
  } while (result != 0 && errno == EINTR);
  return result;
}

// A server that ended without cleaning up leaves its file; one that runs answers.
Status RemoveStale(const std::string& path, const sockaddr_un& address) {
  struct stat info{};
  if (::lstat(path.c_str(), &info) != 0) return {};
  if (!S_ISSOCK(info.st_mode)) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("cannot make the socket '{}': there is something else", path),
                "Choose another path or remove it.");
  }
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) return FailErrno("socket");
  // EAGAIN is a server whose queue is full.
  if (ConnectRetrying(probe.get(), Generic(address), sizeof address) == 0 || errno == EAGAIN) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("cannot make the socket '{}': a program listens on it already", path),
                "Choose another path, or end that program first.");
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return FailErrno(fmt::format("cannot remove the old socket '{}'", path));
  }
  return {};
}

using AddressList = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Result<AddressList> Resolve(const SocketAddress& address, int flags) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* found = nullptr;
  const std::string host(address.host.empty() ? std::string(kLoopback) : address.host);
  const int failed = ::getaddrinfo(host.c_str(), address.port.c_str(), &hints, &found);
  if (failed != 0) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("address resolution failed for {}:{}: {}", host, address.port,
                            ::gai_strerror(failed)),
                "Write HOST:PORT with a name or address of this machine and a port number.");
  }
  return AddressList(found, &::freeaddrinfo);
}

std::string PortOf(int fd, const std::string& otherwise) {
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  std::array<char, NI_MAXSERV> port{};
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size) != 0 ||
      ::getnameinfo(reinterpret_cast<const sockaddr*>(&bound), size, nullptr, 0, port.data(),
                    port.size(), NI_NUMERICSERV) != 0) {
    return otherwise;
  }
  return port.data();
}

// Small messages both ways: waiting to fill packets would only add delay.
void DisableDelay(int fd) {
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

Result<UniqueFd> ListenTcp(const SocketAddress& address) {
  HF_TRY(const AddressList list, Resolve(address, AI_PASSIVE));
  int os_errno = 0;
  for (const addrinfo* one = list.get(); one != nullptr; one = one->ai_next) {
    UniqueFd fd(::socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    const int on = 1;
    if (fd && ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        ::bind(fd.get(), one->ai_addr, one->ai_addrlen) == 0) {
      return fd;
    }
    os_errno = errno;
  }
  return Fail(Error::FromErrno(fmt::format("cannot listen on {}", address.Describe()), os_errno)
                  .WithHint("Choose another port; 0 takes any that is free."));
}

}  // namespace

std::string SocketAddress::Describe() const {
  if (!path.empty()) return "unix:" + path;
  const std::string_view shown = host.empty() ? kLoopback : std::string_view(host);
  if (shown.find(':') != std::string_view::npos) return fmt::format("tcp:[{}]:{}", shown, port);
  return fmt::format("tcp:{}:{}", shown, port);
}

Result<ListeningSocket> ListeningSocket::Create(const SocketAddress& address, int backlog) {
  if (address.path.empty()) {
    HF_TRY(UniqueFd fd, ListenTcp(address));
    if (::listen(fd.get(), backlog) != 0) {
      return FailErrno(fmt::format("cannot listen on {}", address.Describe()));
    }
    SocketAddress bound = address;
    bound.port = PortOf(fd.get(), address.port);
    return ListeningSocket(std::move(fd), std::move(bound));
  }
  HF_TRY(const sockaddr_un name, UnixAddress(address.path));
  HF_TRY_STATUS(RemoveStale(address.path, name));
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return FailErrno("socket");
  if (::bind(fd.get(), Generic(name), sizeof name) != 0) {
    return Fail(Error::FromErrno(fmt::format("cannot make the socket '{}'", address.path), errno)
                    .WithHint("Its folder must exist and be writable."));
  }
  ListeningSocket socket(std::move(fd), address);
  struct stat info{};
  if (::lstat(address.path.c_str(), &info) == 0) {
    socket.device_ = info.st_dev;
    socket.inode_ = info.st_ino;
  }
  if (::listen(socket.fd(), backlog) != 0) {
    return FailErrno(fmt::format("cannot listen on '{}'", address.path));
  }
  return socket;
}

ListeningSocket::ListeningSocket(ListeningSocket&& other) noexcept
    : fd_(std::move(other.fd_)),
      address_(std::move(other.address_)),
      device_(other.device_),
      inode_(std::exchange(other.inode_, 0)) {}

ListeningSocket::~ListeningSocket() {
  struct stat info{};
  // Somebody else may have put another socket in its place.
  if (inode_ != 0 && ::lstat(address_.path.c_str(), &info) == 0 && info.st_dev == device_ &&
      info.st_ino == inode_) {
    ::unlink(address_.path.c_str());
  }
}

UniqueFd ListeningSocket::Accept() const noexcept {
  UniqueFd client(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (client && address_.path.empty()) DisableDelay(client.get());
  return client;
}

Result<UniqueFd> ListeningSocket::WaitForClient() const {
  log::Info(fmt::format("waiting for connection on: {},server=on", address_.Describe()));
  // The program blocks SIGINT and SIGTERM and reads them in its loop, which does not run yet. While
  // this waits they do what they do to any program: end it.
  sigset_t none;
  ::sigemptyset(&none);
  pollfd wait{.fd = fd_.get(), .events = POLLIN, .revents = 0};
  for (;;) {
    if (::ppoll(&wait, 1, nullptr, &none) < 0) {
      if (errno == EINTR) continue;
      return FailErrno("ppoll");
    }
    UniqueFd client = Accept();
    if (client) return client;
    if (errno != EINTR && errno != ECONNABORTED && errno != EAGAIN) {
      return FailErrno(fmt::format("cannot accept a client on {}", address_.Describe()));
    }
  }
}

Result<UniqueFd> ConnectSocket(const SocketAddress& address) {
  constexpr const char* kHint = "Start its server first, or be the server with server=on.";
  if (!address.path.empty()) {
    HF_TRY(const sockaddr_un name, UnixAddress(address.path));
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd) return FailErrno("socket");
    if (ConnectRetrying(fd.get(), Generic(name), sizeof name) == 0) return fd;
    const int os_errno = errno;
    return Fail(
        Error::FromErrno(fmt::format("cannot connect to the socket '{}'", address.path), os_errno)
            .WithHint(kHint));
  }
  HF_TRY(const AddressList list, Resolve(address, 0));
  int os_errno = 0;
  for (const addrinfo* one = list.get(); one != nullptr; one = one->ai_next) {
    UniqueFd fd(::socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (fd && ConnectRetrying(fd.get(), one->ai_addr, one->ai_addrlen) == 0) {
      DisableDelay(fd.get());
      return fd;
    }
    os_errno = errno;
  }
  return Fail(Error::FromErrno(fmt::format("cannot connect to {}", address.Describe()), os_errno)
                  .WithHint(kHint));
}

}  // namespace holdfast::devices
