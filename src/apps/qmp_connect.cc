// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "apps/qmp_client.h"

namespace holdfast::apps {
namespace {

struct Address {
  bool tcp = false;
  std::string path_or_host = {};
  std::string port = {};
};

bool IsNumber(std::string_view text) {
  return !text.empty() && text.size() <= 5 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

Result<Address> ParseAddress(const std::string& text) {
  if (text.starts_with("unix:")) return Address{.tcp = false, .path_or_host = text.substr(5)};
  const bool named = text.starts_with("tcp:");
  const std::string rest = named ? text.substr(4) : text;
  const std::size_t colon = rest.rfind(':');
  struct stat info{};
  const bool port = colon != std::string::npos && colon > 0 && IsNumber(rest.substr(colon + 1));
  if (named && !port) {
    return Fail(Errc::kInvalidArgument, fmt::format("'{}' is no host and port", text),
                "Write tcp:HOST:PORT.");
  }
  if (!named && (!port || rest.find('/') != std::string::npos || ::stat(rest.c_str(), &info) == 0))
    return Address{.tcp = false, .path_or_host = rest};
  std::string host = rest.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  return Address{.tcp = true, .path_or_host = host, .port = rest.substr(colon + 1)};
}

// The error of connect(), with what can be done about it.
tl::unexpected<Error> CannotConnect(const std::string& name, int os_errno) {
  std::string hint = "Start holdfast with -qmp unix:PATH,server=on,wait=off and name that PATH.";
  if (os_errno == ECONNREFUSED) hint = "Nobody listens there; the virtual machine may have ended.";
  if (os_errno == EACCES) hint = "Only the user who started holdfast, or root, may connect.";
  if (os_errno == EAGAIN) hint = "Too many clients wait for it; try again.";
  return Fail(
      Error::FromErrno(fmt::format("cannot connect to '{}'", name), os_errno).WithHint(hint));
}

Result<UniqueFd> ConnectTo(int family, const sockaddr* address, socklen_t size,
                           const std::string& name) {
  UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return FailErrno("socket");
  if (::connect(fd.get(), address, size) == 0) return fd;
  if (errno != EINPROGRESS) return CannotConnect(name, errno);
  pollfd wait{.fd = fd.get(), .events = POLLOUT, .revents = 0};
  constexpr auto kLongest = static_cast<int>(
      std::chrono::duration_cast<std::chrono::milliseconds>(QmpClient::kGreetingTimeout).count());
  if (::poll(&wait, 1, kLongest) <= 0) return CannotConnect(name, ETIMEDOUT);
  int error = 0;
  socklen_t error_size = sizeof error;
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &error_size) != 0)
    return FailErrno("SO_ERROR");
  if (error != 0) return CannotConnect(name, error);
  return fd;
}

Result<UniqueFd> ConnectUnix(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("'{}' is no path of a socket: it has {} characters", path, path.size()),
                fmt::format("A socket's path has 1 to {}.", sizeof address.sun_path - 1));
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  // NOLINTNEXTLINE(cppcoreguidelines-pro-type-reinterpret-cast): the socket interface is so
  return ConnectTo(AF_UNIX, reinterpret_cast<const sockaddr*>(&address), sizeof address, path);
}

Result<UniqueFd> ConnectTcp(const Address& to, const std::string& name) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failed = ::getaddrinfo(to.path_or_host.c_str(), to.port.c_str(), &hints, &found);
  if (failed != 0) {
    return Fail(Errc::kNotFound,
                fmt::format("cannot connect to '{}': {}", name, ::gai_strerror(failed)),
                "Check the host's name and the port.");
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> owner(found, &::freeaddrinfo);
  Result<UniqueFd> fd = CannotConnect(name, ECONNREFUSED);
  for (const addrinfo* entry = found; entry != nullptr && !fd; entry = entry->ai_next)
    fd = ConnectTo(entry->ai_family, entry->ai_addr, entry->ai_addrlen, name);
  return fd;
}

}  // namespace

Result<QmpClient> QmpClient::Connect(const std::string& address) {
  HF_TRY(const Address to, ParseAddress(address));
  HF_TRY(UniqueFd fd, to.tcp ? ConnectTcp(to, address) : ConnectUnix(to.path_or_host));
  return Adopt(std::move(fd), address);
}

}  // namespace holdfast::apps
