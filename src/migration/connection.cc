// SPDX-License-Identifier: Apache-2.0
#include "migration/connection.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netdb.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>

#include "migration/exec_program.h"
#include "migration/socket_channel.h"

namespace holdfast::migration {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

Error Cancelled() {
  return Error(Errc::kSystem, "the connection was cancelled", {}, ECANCELED);
}

void Signal(int eventfd) noexcept {
  const std::uint64_t one = 1;
  // Cannot fail: the counter is nowhere near its end.
  [[maybe_unused]] const ssize_t written = ::write(eventfd, &one, sizeof one);
}

// ---- Sockets ------------------------------------------------------------------------------------

// Connects one socket, which does not block, and waits for the outcome.
class Connecting {
 public:
  Connecting(const ConnectOptions& options, std::string what)
      : options_(options), what_(std::move(what)), wake_(::eventfd(0, EFD_CLOEXEC)) {}

  Result<UniqueFd> To(int domain, const sockaddr* address, socklen_t size) const {
    if (!wake_) return FailErrno("eventfd");
    const std::stop_callback wake(options_.cancel, [fd = wake_.get()] { Signal(fd); });
    UniqueFd fd(::socket(domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd) return FailErrno("socket");
    const Clock::time_point end = Clock::now() + options_.timeout;
    for (;;) {
      if (options_.cancel.stop_requested()) return Fail(Cancelled());
      if (::connect(fd.get(), address, size) == 0) return fd;
      const int os_errno = errno;
      if (os_errno == EINPROGRESS || os_errno == EALREADY) break;
      if (os_errno != EINTR && os_errno != EAGAIN) return Fail(Error::FromErrno(what_, os_errno));
      if (Clock::now() >= end) return Fail(Error::FromErrno(what_, ETIMEDOUT));
      // A Unix server whose queue is full; there is no event for its end.
      if (os_errno == EAGAIN) HF_TRY_STATUS(Pause());
    }
    HF_TRY_STATUS(Wait(fd.get(), end));
    int os_errno = 0;
    socklen_t length = sizeof os_errno;
    if (::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &os_errno, &length) != 0) os_errno = errno;
    if (os_errno != 0) return Fail(Error::FromErrno(what_, os_errno));
    return fd;
  }

 private:
  Status Pause() const {
    pollfd wake{.fd = wake_.get(), .events = POLLIN, .revents = 0};
    constexpr int kPauseMs = 20;
    if (::poll(&wake, 1, kPauseMs) > 0) return Fail(Cancelled());
    return {};
  }

  Status Wait(int fd, Clock::time_point end) const {
    for (;;) {
      std::array<pollfd, 2> fds = {{{.fd = fd, .events = POLLOUT, .revents = 0},
                                    {.fd = wake_.get(), .events = POLLIN, .revents = 0}}};
      const auto left = std::chrono::ceil<milliseconds>(end - Clock::now()).count();
      const int ready = ::poll(fds.data(), fds.size(),
                               static_cast<int>(std::clamp<std::int64_t>(left, 0, 1 << 30)));
      if (fds[1].revents != 0 || options_.cancel.stop_requested()) return Fail(Cancelled());
      if (ready > 0) return {};
      if (ready == 0 && Clock::now() >= end) return Fail(Error::FromErrno(what_, ETIMEDOUT));
      if (ready < 0 && errno != EINTR) return FailErrno("poll");
    }
  }

  const ConnectOptions& options_;
  const std::string what_;
  const UniqueFd wake_;
};

Result<UniqueFd> ConnectTo(const TcpAddress& address, const ConnectOptions& options) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failed = ::getaddrinfo(address.host.empty() ? nullptr : address.host.c_str(),
                                   address.port.c_str(), &hints, &found);
  if (failed != 0) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("address resolution failed for {}: {}", Describe(address),
                            ::gai_strerror(failed)),
                "Write a name or address, and a port number.");
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> list(found, &::freeaddrinfo);
  const Connecting connecting(options, fmt::format("Failed to connect to '{}'", Describe(address)));
  Result<UniqueFd> fd = Fail(Cancelled());
  for (const addrinfo* one = list.get(); one != nullptr; one = one->ai_next) {
    fd = connecting.To(one->ai_family, one->ai_addr, one->ai_addrlen);
    if (fd || fd.error().os_errno() == ECANCELED) return fd;
  }
  return Fail(std::move(fd).error().WithHint("Start the other side with -incoming first."));
}

Result<UniqueFd> ConnectTo(const UnixAddress& address, const ConnectOptions& options) {
  sockaddr_un name{};
  name.sun_family = AF_UNIX;
  if (address.path.size() >= sizeof name.sun_path) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("UNIX socket path '{}' is too long", address.path),
                fmt::format("It may have at most {} bytes.", sizeof name.sun_path - 1));
  }
  std::memcpy(name.sun_path, address.path.data(), address.path.size());
  const Connecting connecting(options, fmt::format("Failed to connect to '{}'", Describe(address)));
  Result<UniqueFd> fd =
      connecting.To(AF_UNIX, reinterpret_cast<const sockaddr*>(&name), sizeof name);
  if (fd || fd.error().os_errno() == ECANCELED) return fd;
  return Fail(std::move(fd).error().WithHint("Start the other side with -incoming first."));
}

// ---- Everything else ----------------------------------------------------------------------------

Result<UniqueFd> TakeFd(const FdAddress& address, const AddressServices& services) {
  int number = -1;
  const char* const end = address.name.data() + address.name.size();
  const auto [rest, error] = std::from_chars(address.name.data(), end, number);
  UniqueFd fd;
  if (error == std::errc{} && rest == end) {
    struct stat info{};
    // Only what streams: others of the monitor's own descriptors are never meant.
    if (number <= STDERR_FILENO || ::fstat(number, &info) != 0 ||
        !(S_ISSOCK(info.st_mode) || S_ISFIFO(info.st_mode))) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("fd:{} is no socket or pipe that holdfast was started with", number),
                  "Start it with one open under this number, from 3 on.");
    }
    fd.reset(number);
  } else if (services.take_fd) {
    HF_TRY(fd, services.take_fd(address.name));
  } else {
    return Fail(Errc::kNotFound,
                fmt::format("File descriptor named '{}' has not been found", address.name),
                "Name one by its number, as holdfast was started with it.");
  }
  if (::fcntl(fd.get(), F_SETFD, FD_CLOEXEC) != 0) return FailErrno("fcntl");
  return fd;
}

Result<UniqueFd> OpenFile(const FileAddress& address, bool write) {
  const int flags = write ? O_CREAT | O_WRONLY : O_RDONLY;
  constexpr mode_t kMode = 0600;
  UniqueFd fd(::open(address.path.c_str(), flags | O_CLOEXEC | O_NOCTTY, kMode));
  if (!fd) return FailErrno(fmt::format("cannot open '{}'", address.path));
  if (address.offset != 0 && ::lseek(fd.get(), static_cast<off_t>(address.offset), SEEK_SET) < 0)
    return FailErrno(fmt::format("cannot go to offset {} of '{}'", address.offset, address.path));
  return fd;
}

// The one connection of an address that nobody listens at.
Result<UniqueFd> Open(const Address& address, const AddressServices& services, bool write) {
  if (const auto* fd = std::get_if<FdAddress>(&address)) return TakeFd(*fd, services);
  if (const auto* file = std::get_if<FileAddress>(&address)) return OpenFile(*file, write);
  const auto& exec = std::get<ExecAddress>(address);
  if (!services.may_spawn) {
    return Fail(Errc::kPermission,
                fmt::format("{}: the sandbox lets no program start", Describe(address)),
                "Start holdfast with -sandbox on,spawn=allow, or use unix: and socat.");
  }
  return StartProgram(exec.arguments);
}

}  // namespace

Result<std::unique_ptr<Channel>> Connect(const Address& address, const ConnectOptions& options) {
  UniqueFd fd;
  TlsOptions tls = options.tls;
  if (const auto* tcp = std::get_if<TcpAddress>(&address)) {
    HF_TRY(fd, ConnectTo(*tcp, options));
    if (tls.hostname.empty()) tls.hostname = tcp->host;
  } else if (const auto* path = std::get_if<UnixAddress>(&address)) {
    HF_TRY(fd, ConnectTo(*path, options));
  } else {
    if (options.cancel.stop_requested()) return Fail(Cancelled());
    HF_TRY(fd, Open(address, options.services, true));
  }
  HF_TRY(std::unique_ptr<Channel> channel, SocketChannel::Create(std::move(fd), Describe(address)));
  if (!tls.credentials) return channel;
  return WrapTls(std::move(channel), tls, options.cancel);
}

Result<std::unique_ptr<Listener>> Listener::Listen(const Address& address,
                                                   const AddressServices& services) {
  const auto* const tcp = std::get_if<TcpAddress>(&address);
  const auto* const path = std::get_if<UnixAddress>(&address);
  if (tcp == nullptr && path == nullptr) {
    HF_TRY(UniqueFd fd, Open(address, services, false));
    HF_TRY(std::unique_ptr<Channel> only, SocketChannel::Create(std::move(fd), Describe(address)));
    UniqueFd ready(::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!ready) return FailErrno("eventfd");
    return std::unique_ptr<Listener>(
        new Listener(address, std::nullopt, std::move(only), std::move(ready)));
  }
  if (path != nullptr) {
    HF_TRY(devices::ListeningSocket socket,
           devices::ListeningSocket::Create({.path = path->path}, kBacklog));
    return std::unique_ptr<Listener>(new Listener(address, std::move(socket), nullptr, {}));
  }
  // Any address: of the new kind and the old one, or of the old one where there is no other.
  const std::string host = tcp->host.empty() ? "::" : tcp->host;
  auto socket = devices::ListeningSocket::Create({.host = host, .port = tcp->port}, kBacklog);
  if (socket) return Of(*tcp, *std::move(socket));
  if (!tcp->host.empty()) return Fail(std::move(socket).error());
  HF_TRY(devices::ListeningSocket old,
         devices::ListeningSocket::Create({.host = "0.0.0.0", .port = tcp->port}, kBacklog));
  return Of(*tcp, std::move(old));
}

std::unique_ptr<Listener> Listener::Of(const TcpAddress& address, devices::ListeningSocket socket) {
  TcpAddress bound{.host = address.host, .port = socket.address().port};
  return std::unique_ptr<Listener>(new Listener(std::move(bound), std::move(socket), nullptr, {}));
}

int Listener::fd() const noexcept {
  return socket_ ? socket_->fd() : ready_.get();
}

Result<std::unique_ptr<Channel>> Listener::Accept() {
  if (!socket_) {
    std::uint64_t count = 0;
    // There is nothing more to read: the event loop need not come again.
    [[maybe_unused]] const ssize_t got = ::read(ready_.get(), &count, sizeof count);
    return std::move(only_);
  }
  UniqueFd fd = socket_->Accept();
  if (!fd) return std::unique_ptr<Channel>();
  HF_TRY(std::unique_ptr<Channel> channel,
         SocketChannel::Create(std::move(fd), Describe(address_)));
  return channel;
}

}  // namespace holdfast::migration
