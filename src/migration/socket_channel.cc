// SPDX-License-Identifier: Apache-2.0
#include "migration/socket_channel.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>

#include "base/fd_passing.h"

namespace holdfast::migration {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kNoLimit{-1};
// Parts handed to the kernel at once.
constexpr std::size_t kMostParts = 64;

// Parts of which some are written already.
class Remaining {
 public:
  explicit Remaining(std::span<const Channel::Bytes> parts) : parts_(parts) { SkipEmpty(); }
  bool empty() const noexcept { return parts_.empty(); }
  // The next of them, as the kernel takes them. @return how many
  std::size_t Fill(std::array<iovec, kMostParts>& vectors) const {
    const std::size_t count = std::min(parts_.size(), kMostParts);
    for (std::size_t i = 0; i < count; ++i) {
      const Channel::Bytes part = i == 0 ? parts_[0].subspan(done_) : parts_[i];
      // The kernel only reads.
      vectors[i] = {.iov_base = const_cast<std::byte*>(part.data()), .iov_len = part.size()};
    }
    return count;
  }
  void Advance(std::size_t bytes) {
    done_ += bytes;
    SkipEmpty();
  }

 private:
  void SkipEmpty() {
    while (!parts_.empty() && done_ >= parts_.front().size()) {
      done_ -= parts_.front().size();
      parts_ = parts_.subspan(1);
    }
  }
  std::span<const Channel::Bytes> parts_;
  std::size_t done_ = 0;  // bytes of the first
};

void SetOption(int fd, int level, int option, int value) {
  ::setsockopt(fd, level, option, &value, sizeof value);  // best effort
}

}  // namespace

Result<std::unique_ptr<SocketChannel>> SocketChannel::Create(UniqueFd fd, std::string peer) {
  UniqueFd stop(::eventfd(0, EFD_CLOEXEC));
  if (!stop) return FailErrno("eventfd");
  int domain = -1;
  socklen_t size = sizeof domain;
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_DOMAIN, &domain, &size) != 0) {
    domain = -1;
    const int flags = ::fcntl(fd.get(), F_GETFL);
    if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) < 0) {
      return FailErrno(fmt::format("cannot use {}", peer));
    }
  }
  if (domain == AF_INET || domain == AF_INET6) {
    // Requests for single pages must not wait for more to fill a packet.
    SetOption(fd.get(), IPPROTO_TCP, TCP_NODELAY, 1);
  }
  return std::unique_ptr<SocketChannel>(
      new SocketChannel(std::move(fd), std::move(stop), std::move(peer), domain));
}

Error SocketChannel::Closed() const {
  return Error(Errc::kSystem, fmt::format("{}: the other side closed the connection", peer_), {},
               EPIPE);
}

Error SocketChannel::Cancelled() const {
  return Error(Errc::kSystem, fmt::format("{}: the connection was shut down", peer_), {},
               ECANCELED);
}

Result<bool> SocketChannel::Wait(short events, milliseconds timeout) const {
  const Clock::time_point end = Clock::now() + timeout;
  for (;;) {
    std::array<pollfd, 2> fds = {{{.fd = fd_.get(), .events = events, .revents = 0},
                                  {.fd = stop_.get(), .events = POLLIN, .revents = 0}}};
    int left = -1;
    if (timeout >= milliseconds::zero()) {
      const auto rest = std::chrono::ceil<milliseconds>(end - Clock::now()).count();
      left = static_cast<int>(std::clamp<std::int64_t>(rest, 0, 1 << 30));
    }
    const int ready = ::poll(fds.data(), fds.size(), left);
    if (stopped_) return Fail(Cancelled());
    if (ready > 0) return true;
    if (ready == 0 && (timeout < milliseconds::zero() || Clock::now() < end)) continue;
    if (ready == 0) return false;
    if (errno != EINTR) return FailErrno("poll");
  }
}

Status SocketChannel::WaitForProgress(short events) const {
  const bool limited = stall_timeout_ > milliseconds::zero();
  HF_TRY(const bool ready, Wait(events, limited ? stall_timeout_ : kNoLimit));
  if (ready) return {};
  const double seconds = std::chrono::duration<double>(stall_timeout_).count();
  return Fail(Error(Errc::kSystem,
                    fmt::format("{}: the other side has {} nothing for {:.3g} seconds", peer_,
                                events == POLLIN ? "sent" : "taken", seconds),
                    "The network or the other monitor stalls.", ETIMEDOUT));
}

Status SocketChannel::AfterFailure(int os_errno, short events) const {
  if (stopped_) return Fail(Cancelled());
  if (os_errno == EINTR) return {};
  if (os_errno == EAGAIN) return WaitForProgress(events);
  // A monitor that is killed with bytes unread resets the connection instead of ending it.
  if (os_errno == EPIPE || os_errno == ECONNRESET) return Fail(Closed());
  return Fail(Error::FromErrno(fmt::format("{}: the connection broke", peer_), os_errno));
}

Result<std::size_t> SocketChannel::ReadSome(std::span<std::byte> data) {
  for (;;) {
    if (stopped_) return Fail(Cancelled());
    const ssize_t got = socket() ? ::recv(fd_.get(), data.data(), data.size(), MSG_DONTWAIT)
                                 : ::read(fd_.get(), data.data(), data.size());
    if (got > 0) return static_cast<std::size_t>(got);
    if (got == 0) return Fail(stopped_ ? Cancelled() : Closed());
    HF_TRY_STATUS(AfterFailure(errno, POLLIN));
  }
}

Result<bool> SocketChannel::WaitReadable(milliseconds timeout) {
  if (stopped_) return Fail(Cancelled());
  return Wait(POLLIN, std::max(timeout, milliseconds::zero()));
}

Status SocketChannel::WriteAll(std::span<const Bytes> parts) {
  Remaining remaining(parts);
  std::array<iovec, kMostParts> vectors;
  while (!remaining.empty()) {
    if (stopped_) return Fail(Cancelled());
    msghdr message{};
    message.msg_iov = vectors.data();
    message.msg_iovlen = remaining.Fill(vectors);
    const ssize_t written =
        socket() ? ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT)
                 : ::writev(fd_.get(), vectors.data(), static_cast<int>(message.msg_iovlen));
    if (written >= 0) {
      remaining.Advance(static_cast<std::size_t>(written));
    } else {
      HF_TRY_STATUS(AfterFailure(errno, POLLOUT));
    }
  }
  return {};
}

void SocketChannel::Shutdown() noexcept {
  stopped_ = true;
  const std::uint64_t one = 1;
  // Cannot fail: the counter is nowhere near its end.
  [[maybe_unused]] const ssize_t written = ::write(stop_.get(), &one, sizeof one);
  if (socket()) ::shutdown(fd_.get(), SHUT_RDWR);
}

void SocketChannel::SetStallTimeout(milliseconds timeout) {
  stall_timeout_ = std::max(timeout, milliseconds::zero());
  if (domain_ != AF_INET && domain_ != AF_INET6) return;
  const int limit = static_cast<int>(std::min<std::int64_t>(stall_timeout_.count(), 1 << 30));
  SetOption(fd_.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, limit);
  SetOption(fd_.get(), SOL_SOCKET, SO_KEEPALIVE, limit > 0 ? 1 : 0);
  if (limit == 0) return;
  // Four probes within the time.
  const int interval = std::clamp(limit / 5000, 1, 60);
  SetOption(fd_.get(), IPPROTO_TCP, TCP_KEEPIDLE, interval);
  SetOption(fd_.get(), IPPROTO_TCP, TCP_KEEPINTVL, interval);
  SetOption(fd_.get(), IPPROTO_TCP, TCP_KEEPCNT, 4);
}

Status SocketChannel::SendFd(int fd) {
  if (domain_ != AF_UNIX) {
    return Fail(Errc::kInvalidArgument, fmt::format("{} cannot pass descriptors on", peer_),
                "Use unix:PATH.");
  }
  const std::byte byte{};
  for (;;) {
    if (stopped_) return Fail(Cancelled());
    if (SendWithFds(fd_.get(), std::span(&byte, 1), std::span(&fd, 1),
                    MSG_NOSIGNAL | MSG_DONTWAIT) == 1) {
      return {};
    }
    HF_TRY_STATUS(AfterFailure(errno, POLLOUT));
  }
}

Result<UniqueFd> SocketChannel::ReceiveFd() {
  for (;;) {
    if (stopped_) return Fail(Cancelled());
    std::byte byte{};
    WithFds got = ReceiveWithFds(fd_.get(), std::span(&byte, 1), 1, MSG_DONTWAIT);
    if (got.size < 0) {
      HF_TRY_STATUS(AfterFailure(errno, POLLIN));
      continue;
    }
    if (got.size == 0) return Fail(stopped_ ? Cancelled() : Closed());
    if (got.fds.empty() || got.more_fds) {
      return Fail(Errc::kMalformed, fmt::format("{}: one descriptor was to come, and {} came",
                                                peer_, got.more_fds ? "more" : "none"));
    }
    return std::move(got.fds.front());
  }
}

}  // namespace holdfast::migration
