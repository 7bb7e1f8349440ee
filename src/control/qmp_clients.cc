// SPDX-License-Identifier: Apache-2.0
#include "control/qmp_clients.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <span>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "base/fd_passing.h"
#include "devices/chardev.h"

namespace holdfast::control {
namespace {

constexpr std::size_t kChunk = std::size_t{16} << 10;  // received at once
constexpr int kRounds = 16;                            // of work before others have a turn

}  // namespace

// ---- Sockets ------------------------------------------------------------------------------------

Result<std::shared_ptr<QmpServer::Client>> QmpServer::SocketClient::Create(
    EventLoop& loop, VmContext& vm, UniqueFd socket, bool pretty,
    std::function<void(const Client*)> gone) {
  std::shared_ptr<SocketClient> client(
      new SocketClient(loop, vm, std::move(socket), pretty, std::move(gone)));
  HF_TRY_STATUS(client->Start());
  return std::shared_ptr<Client>(std::move(client));
}

QmpServer::SocketClient::SocketClient(EventLoop& loop, VmContext& vm, UniqueFd socket, bool pretty,
                                      std::function<void(const Client*)> gone)
    : loop_(loop),
      socket_(std::move(socket)),
      gone_(std::move(gone)),
      session_(vm, {.pretty = pretty}) {}

QmpServer::SocketClient::~SocketClient() {
  Close();
}

Status QmpServer::SocketClient::Start() {
  HF_TRY_STATUS(loop_.AddFd(socket_.get(), EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                            [weak = weak_from_this()](std::uint32_t events) {
                              if (const auto self = weak.lock()) self->OnEvents(events);
                            }));
  Drain();  // the greeting
  return {};
}

void QmpServer::SocketClient::OnEvents(std::uint32_t events) {
  constexpr std::uint32_t kOver = EPOLLHUP | EPOLLERR;
  if ((events & (EPOLLIN | EPOLLRDHUP | kOver)) != 0) readable_ = true;
  if ((events & (EPOLLOUT | kOver)) != 0) writable_ = true;
  Work();
}

void QmpServer::SocketClient::PostWork() {
  loop_.Post([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->Work();
  });
}

void QmpServer::SocketClient::Work() {
  for (int round = 0; round < kRounds; ++round) {
    if (closed_) return;
    const bool took = TakeInput();
    const bool stepped = session_.CanStep();
    if (stepped) session_.Step();
    const std::size_t queued = session_.output().size();
    const bool drained = Drain();
    // Room for output lets the next request run.
    const bool progress = took || stepped || session_.output().size() < queued;
    if (session_.over() && drained) {
      // Going inside a loop over all clients would pull it from under that loop's feet.
      Close();
      loop_.Post([weak = weak_from_this()] {
        if (const auto self = weak.lock()) self->gone_(self.get());
      });
      return;
    }
    if (!progress) return;
  }
  PostWork();
}

// Moves bytes from the socket to the session; returns whether there were any.
bool QmpServer::SocketClient::TakeInput() {
  if (!session_.WantsInput()) return false;
  if (input_.empty() && !Receive()) return false;
  input_.erase(0, session_.Receive(input_));
  if (ended_ && input_.empty()) session_.EndInput();
  return true;
}

// Reads from the socket into input_; false if there is nothing now.
bool QmpServer::SocketClient::Receive() {
  if (!readable_ || ended_) return false;
  input_.resize(kChunk);
  WithFds got;
  do {
    got = ReceiveWithFds(socket_.get(), std::as_writable_bytes(std::span(input_)),
                         QmpSession::kMostFds, MSG_DONTWAIT);
  } while (got.size < 0 && errno == EINTR);
  const int os_errno = errno;
  input_.resize(got.size > 0 ? static_cast<std::size_t>(got.size) : 0);
  if (got.size > 0) {
    session_.ReceiveFds(std::move(got.fds));
    return true;
  }
  readable_ = false;
  if (got.size < 0 && (os_errno == EAGAIN || os_errno == EWOULDBLOCK)) return false;
  ended_ = true;
  session_.EndInput();
  return true;
}

void QmpServer::SocketClient::Emit(const Json& event) {
  if (closed_) return;
  session_.Emit(event);
  Drain();
}

bool QmpServer::SocketClient::Drain() {
  while (!session_.output().empty()) {
    if (!writable_) return false;
    const std::string_view output = session_.output();
    const ssize_t sent =
        ::send(socket_.get(), output.data(), output.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent >= 0) {
      session_.Consume(static_cast<std::size_t>(sent));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      writable_ = false;
    } else if (errno != EINTR) {
      session_.Mute();
    }
  }
  return true;
}

void QmpServer::SocketClient::WaitForRoom(int milliseconds) {
  pollfd wait{.fd = socket_.get(), .events = POLLOUT, .revents = 0};
  ::poll(&wait, 1, milliseconds);
  writable_ = true;
}

void QmpServer::SocketClient::Close() {
  if (std::exchange(closed_, true)) return;
  session_.Mute();
  loop_.RemoveFd(socket_.get());
  socket_.reset();
}

// ---- Chardevs -----------------------------------------------------------------------------------

std::shared_ptr<QmpServer::Client> QmpServer::ChardevClient::Create(EventLoop& loop, VmContext& vm,
                                                                    devices::Chardev& front,
                                                                    bool pretty) {
  std::shared_ptr<ChardevClient> client(new ChardevClient(loop, vm, front, pretty));
  front.SetWritable([raw = client.get()] { raw->Work(); });
  front.SetReceiver([raw = client.get()](std::span<const std::byte> data) {
    const std::size_t taken =
        raw->session_.Receive({reinterpret_cast<const char*>(data.data()), data.size()});
    raw->Work();
    return taken;
  });
  client->Drain();  // the greeting
  return client;
}

QmpServer::ChardevClient::~ChardevClient() {
  front_.SetReceiver(nullptr);
  front_.SetWritable(nullptr);
}

void QmpServer::ChardevClient::Work() {
  const bool was_full = !session_.WantsInput();
  for (int round = 0; round < kRounds && session_.CanStep(); ++round) {
    session_.Step();
    Drain();
  }
  Drain();
  if (was_full && session_.WantsInput()) front_.ReceiverReady();
  if (!session_.CanStep()) return;
  loop_.Post([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->Work();
  });
}

void QmpServer::ChardevClient::Emit(const Json& event) {
  session_.Emit(event);
  Drain();
}

bool QmpServer::ChardevClient::Drain() {
  const std::string_view output = session_.output();
  if (!output.empty()) session_.Consume(front_.Write(std::as_bytes(std::span(output))));
  return session_.output().empty();
}

void QmpServer::ChardevClient::WaitForRoom(int /*milliseconds*/) {
  front_.Flush();
}

}  // namespace holdfast::control
