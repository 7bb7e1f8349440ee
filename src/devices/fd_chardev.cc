// SPDX-License-Identifier: Apache-2.0
#include "devices/fd_chardev.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <utility>

namespace holdfast::devices {
namespace {

using std::chrono::milliseconds;

// After output the loop looks again this much later, unasked. So a guest that prints steadily costs
// a thousand wake-ups a second instead of one a byte, and no byte waits longer than this.
constexpr milliseconds kLinger{1};
constexpr milliseconds kFlushLimit{1000};

}  // namespace

FdChardev::~FdChardev() {
  Disconnect();
  if (kick_) loop_.RemoveFd(kick_.get());
  if (linger_) loop_.CancelTimer(*linger_);
}

Status FdChardev::Start() {
  kick_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!kick_) return FailErrno("eventfd");
  // Edge-triggered: each write is an event, and nobody needs to read it.
  return loop_.AddFd(kick_.get(), EPOLLIN | EPOLLET, [this](std::uint32_t) { OnKick(); });
}

void FdChardev::Kick() noexcept {
  const std::uint64_t one = 1;
  // Fails only when the counter is full, which is as good as written.
  [[maybe_unused]] const ssize_t written = ::write(kick_.get(), &one, sizeof one);
}

Status FdChardev::Watch(End& end, std::uint32_t events) {
  struct stat info{};
  if (::fstat(end.fd, &info) != 0) return FailErrno("fstat");
  end.socket = S_ISSOCK(info.st_mode);
  const bool input = &end == &in_ || end.fd == in_.fd;
  const bool output = &end == &out_ || end.fd == out_.fd;
  Status watched = loop_.AddFd(end.fd, events | EPOLLET, [this, input, output](std::uint32_t got) {
    OnEvents(got, input, output);
  });
  if (watched) return {};
  if (watched.error().os_errno() != EPERM) return watched;
  end.always_ready = true;
  end.ready = true;
  return {};
}

Status FdChardev::Connect(int input, int output) {
  in_ = End{.fd = input};
  out_ = End{.fd = output};
  Status status;
  if (input != kNone && input == output) {
    status = Watch(in_, EPOLLIN | EPOLLOUT | EPOLLRDHUP);
    out_ = in_;
  } else {
    if (input != kNone) status = Watch(in_, EPOLLIN | EPOLLRDHUP);
    if (status && output != kNone) status = Watch(out_, EPOLLOUT);
  }
  if (!status) {
    Disconnect();
    return status;
  }
  // Try at once: what is ready already must not wait for an event.
  in_.ready = input != kNone;
  out_.ready = output != kNone;
  if (output != kNone) queue_.Open();
  Kick();
  return {};
}

void FdChardev::Disconnect() {
  queue_.Close();
  if (in_.fd != kNone && !in_.always_ready) loop_.RemoveFd(in_.fd);
  if (out_.fd != kNone && out_.fd != in_.fd && !out_.always_ready) loop_.RemoveFd(out_.fd);
  in_ = End{};
  out_ = End{};
  // Who waits for room has it now: the closed queue takes everything.
  if (queue_.TakeWantsRoom() && writable_) writable_();
}

std::size_t FdChardev::Write(std::span<const std::byte> data) noexcept {
  const OutputQueue::Appended appended = queue_.Append(data);
  if (appended.wake) Kick();
  return appended.taken;
}

void FdChardev::SetReceiver(Receiver receiver) {
  receiver_ = std::move(receiver);
  if (receiver_) ReceiverReady();
}

void FdChardev::SetWritable(WritableCallback writable) {
  writable_ = std::move(writable);
}

void FdChardev::ReceiverReady() noexcept {
  receiver_ready_.store(true, std::memory_order_release);
  Kick();
}

void FdChardev::OnEvents(std::uint32_t events, bool input, bool output) {
  constexpr std::uint32_t kOver = EPOLLHUP | EPOLLERR;
  if (output && (events & (EPOLLOUT | kOver)) != 0) {
    out_.ready = true;
    DrainOutput();
  }
  // The output's error may have disconnected the input as well.
  if (input && in_.fd != kNone && (events & (EPOLLIN | EPOLLRDHUP | kOver)) != 0) {
    in_.ready = true;
    PumpInput();
  }
}

void FdChardev::OnKick() {
  if (receiver_ready_.exchange(false, std::memory_order_acquire) && receiver_ && pending_.empty())
    receiver_({});
  PumpInput();
  DrainOutput();
}

ssize_t FdChardev::ReadSome() {
  return in_.socket ? ::recv(in_.fd, chunk_.data(), chunk_.size(), MSG_DONTWAIT)
                    : ::read(in_.fd, chunk_.data(), chunk_.size());
}

void FdChardev::PumpInput() {
  for (int round = 0; round < kRounds; ++round) {
    if (!receiver_) return;
    if (pending_.empty()) {
      if (in_.fd == kNone || !in_.ready) return;
      const ssize_t count = ReadSome();
      if (count < 0 && errno == EINTR) continue;
      if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        in_.ready = false;
        return;
      }
      if (count <= 0) {
        EndInput();
        return;
      }
      pending_ = std::span(chunk_).first(static_cast<std::size_t>(count));
    }
    pending_ = pending_.subspan(receiver_(pending_));
    if (!pending_.empty()) return;  // until ReceiverReady()
  }
  Kick();  // go on after the others
}

void FdChardev::EndInput() {
  if (!in_.always_ready && in_.fd != out_.fd) loop_.RemoveFd(in_.fd);
  in_ = End{};
  OnInputEnd();
}

void FdChardev::EndOutput() {
  if (!out_.always_ready && out_.fd != in_.fd) loop_.RemoveFd(out_.fd);
  out_ = End{};
  queue_.Close();
}

ssize_t FdChardev::WriteSome(std::array<iovec, 2>& pieces, int count) const {
  if (!out_.socket) return ::writev(out_.fd, pieces.data(), count);
  msghdr message{};
  message.msg_iov = pieces.data();
  message.msg_iovlen = static_cast<std::size_t>(count);
  return ::sendmsg(out_.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void FdChardev::DrainOutput() {
  if (out_.fd == kNone) return;
  bool wrote = false;
  for (int round = 0; round < kRounds && out_.ready; ++round) {
    std::array<iovec, 2> pieces{};
    const int count = queue_.Peek(pieces);
    if (count == 0) break;
    const ssize_t written = WriteSome(pieces, count);
    if (written >= 0) {
      wrote = true;
      queue_.Consume(static_cast<std::size_t>(written));
      if (queue_.TakeWantsRoom() && writable_) writable_();
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      out_.ready = false;
    } else if (errno != EINTR) {
      const int os_errno = errno;
      EndOutput();
      OnOutputError(os_errno);
      // Nobody reads any more, so there is room for all.
      if (queue_.TakeWantsRoom() && writable_) writable_();
      return;
    }
  }
  // Without room at the far end its next event goes on; the queue stays awake until then.
  if (!out_.ready) return;
  if (wrote || !queue_.TrySleep()) StartLinger();
}

void FdChardev::StartLinger() {
  if (linger_) return;
  linger_ = loop_.AddTimer(EventLoop::Clock::now() + kLinger, [this] {
    linger_.reset();
    DrainOutput();
  });
}

void FdChardev::Flush() noexcept {
  const auto deadline = EventLoop::Clock::now() + kFlushLimit;
  for (;;) {
    DrainOutput();
    std::array<iovec, 2> pieces{};
    if (out_.fd == kNone || queue_.Peek(pieces) == 0) return;
    const auto left = std::chrono::ceil<milliseconds>(deadline - EventLoop::Clock::now()).count();
    if (left <= 0) return;
    if (out_.ready) continue;
    pollfd far_end{.fd = out_.fd, .events = POLLOUT, .revents = 0};
    ::poll(&far_end, 1, static_cast<int>(left));
    out_.ready = true;
  }
}

}  // namespace holdfast::devices
