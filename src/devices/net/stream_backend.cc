// SPDX-License-Identifier: Apache-2.0
#include "devices/net/stream_backend.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.h"
#include "devices/net/frame.h"

namespace holdfast::devices::net {
namespace {

constexpr std::size_t kLengthSize = 4;
constexpr std::size_t kInputSize = 2 * (kLengthSize + kLargestFrame);

using LengthBytes = std::array<std::byte, kLengthSize>;

LengthBytes EncodeLength(std::size_t size) {
  LengthBytes bytes{};
  for (std::size_t i = 0; i < kLengthSize; ++i) {
    bytes.at(i) = static_cast<std::byte>(size >> (8 * (kLengthSize - 1 - i)));
  }
  return bytes;
}

std::size_t DecodeLength(std::span<const std::byte> bytes) {
  std::size_t size = 0;
  for (std::size_t i = 0; i < kLengthSize; ++i) {
    size = size << 8 | std::to_integer<std::size_t>(bytes[i]);
  }
  return size;
}

}  // namespace

Result<std::unique_ptr<StreamBackend>> StreamBackend::Create(EventLoop& loop, std::string id,
                                                             StreamConfig config, EmitEvent emit) {
  std::unique_ptr<StreamBackend> backend(
      new StreamBackend(loop, std::move(id), std::move(config), std::move(emit)));
  HF_TRY_STATUS(backend->Start());
  return backend;
}

StreamBackend::StreamBackend(EventLoop& loop, std::string id, StreamConfig config, EmitEvent emit)
    : loop_(loop), id_(std::move(id)), config_(std::move(config)), emit_(std::move(emit)) {}

StreamBackend::~StreamBackend() {
  receiver_ = nullptr;
  writable_ = nullptr;
  loop_.CancelTimer(retry_);
  if (listening_) loop_.RemoveFd(listener_->fd());
  if (peer_) loop_.RemoveFd(peer_.get());
}

Status StreamBackend::Start() {
  input_.resize(kInputSize);
  if (config_.address.fd) {
    HF_TRY(UniqueFd socket, InheritSocket(*config_.address.fd, SOCK_STREAM));
    return TakePeer(std::move(socket));
  }
  if (config_.server) {
    HF_TRY(ListeningSocket listener, ListeningSocket::Create(config_.address.socket, 1));
    listener_.emplace(std::move(listener));
    return WatchListener();
  }
  if (config_.reconnect.count() == 0) {
    HF_TRY(UniqueFd socket, ConnectSocket(config_.address.socket));
    return TakePeer(std::move(socket));
  }
  HF_TRY(server_, ResolveAddress(config_.address.socket, SOCK_STREAM));
  TryToConnect();
  return {};
}

Status StreamBackend::WatchListener() {
  HF_TRY_STATUS(loop_.AddFd(listener_->fd(), EPOLLIN, [this](std::uint32_t) {
    UniqueFd client = listener_->Accept();
    if (!client) return;
    loop_.RemoveFd(listener_->fd());
    listening_ = false;
    if (const Status taken = TakePeer(std::move(client)); !taken) {
      log::Warn(fmt::format("netdev '{}': {}", id_, taken.error().message()));
      DropPeer();
    }
  }));
  listening_ = true;
  return {};
}

void StreamBackend::TryLater() {
  peer_.reset();
  retry_ = loop_.AddTimer(EventLoop::Clock::now() + config_.reconnect, [this] { TryToConnect(); });
}

void StreamBackend::TryToConnect() {
  peer_.reset(::socket(server_.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!peer_) return TryLater();
  if (::connect(peer_.get(), server_.get(), server_.size) == 0) {
    if (!TakePeer(std::move(peer_))) DropPeer();
    return;
  }
  if (errno != EINPROGRESS ||
      !loop_.AddFd(peer_.get(), EPOLLOUT, [this](std::uint32_t) { OnConnectResult(); })) {
    TryLater();
  }
}

void StreamBackend::OnConnectResult() {
  loop_.RemoveFd(peer_.get());
  int failed = 0;
  socklen_t size = sizeof failed;
  if (::getsockopt(peer_.get(), SOL_SOCKET, SO_ERROR, &failed, &size) != 0 || failed != 0) {
    return TryLater();
  }
  if (!TakePeer(std::move(peer_))) DropPeer();
}

Status StreamBackend::TakePeer(UniqueFd peer) {
  const int on = 1;
  // Fails for Unix sockets, which never wait anyway.
  static_cast<void>(::setsockopt(peer.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
  peer_ = std::move(peer);
  input_begin_ = input_end_ = 0;
  output_.clear();
  output_begin_ = 0;
  HF_TRY_STATUS(loop_.AddFd(peer_.get(), 0, [this](std::uint32_t events) { OnEvents(events); }));
  events_ = 0;
  connected_ = true;
  UpdateEvents();
  if (emit_) {
    nlohmann::json address = {{"type", "inet"},
                              {"host", config_.address.socket.host},
                              {"port", config_.address.socket.port}};
    if (!config_.address.socket.path.empty()) {
      address = {{"type", "unix"}, {"path", config_.address.socket.path}};
    } else if (config_.address.fd) {
      address = {{"type", "fd"}, {"str", std::to_string(*config_.address.fd)}};
    }
    emit_("NETDEV_STREAM_CONNECTED", {{"netdev-id", id_}, {"addr", std::move(address)}});
  }
  return {};
}

void StreamBackend::DropPeer() {
  if (peer_) loop_.RemoveFd(peer_.get());
  peer_.reset();
  input_begin_ = input_end_ = 0;
  output_.clear();
  output_begin_ = 0;
  receiver_full_ = false;
  if (std::exchange(connected_, false) && emit_) {
    emit_("NETDEV_STREAM_DISCONNECTED", {{"netdev-id", id_}});
  }
  if (listener_ && !listening_) {
    if (const Status watched = WatchListener(); !watched) {
      log::Warn(fmt::format("netdev '{}': no further peers: {}", id_, watched.error().message()));
    }
  } else if (!listener_ && config_.reconnect.count() != 0) {
    TryLater();
  }
  // What waited for room is dropped now, for there is nobody to send it to.
  if (std::exchange(wants_writable_, false) && writable_) writable_();
}

void StreamBackend::OnEvents(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0) FlushOutput();
  if (connected_ && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0) Read();
  // With no room to read the end, epoll would report it over and over.
  if (connected_ && (events & EPOLLHUP) != 0 && input_end_ == input_.size()) DropPeer();
  if (connected_) UpdateEvents();
}

void StreamBackend::Read() {
  // A peer that has gone is noticed even while the guest takes nothing.
  if (input_begin_ != 0) {
    std::memmove(input_.data(), input_.data() + input_begin_, input_end_ - input_begin_);
    input_end_ -= std::exchange(input_begin_, 0);
  }
  if (input_end_ < input_.size()) {
    const ssize_t size =
        ::recv(peer_.get(), input_.data() + input_end_, input_.size() - input_end_, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (size <= 0) return DropPeer();
    input_end_ += static_cast<std::size_t>(size);
  }
  DeliverAll();
}

void StreamBackend::DeliverAll() {
  receiver_full_ = false;
  while (receiver_ && connected_ && input_end_ - input_begin_ >= kLengthSize) {
    const std::span<const std::byte> all(input_.data() + input_begin_, input_end_ - input_begin_);
    const std::size_t size = DecodeLength(all);
    if (size > kLargestFrame) {
      log::Warn(fmt::format("netdev '{}': the peer announces a frame of {} bytes; hanging up", id_,
                            size));
      return DropPeer();
    }
    if (all.size() < kLengthSize + size) return;
    if (size != 0 && !Offer(all.subspan(kLengthSize, size))) {
      receiver_full_ = true;
      return;
    }
    input_begin_ += kLengthSize + size;
  }
}

bool StreamBackend::Offer(std::span<const std::byte> frame) {
  std::array<std::byte, kHeaderSize> header{};
  const std::array<iovec, 2> pieces = {iovec{header.data(), header.size()},
                                       iovec{const_cast<std::byte*>(frame.data()), frame.size()}};
  return receiver_(pieces);
}

void StreamBackend::UpdateEvents() {
  const bool room = receiver_ && !receiver_full_;
  const std::uint32_t wanted = (room ? std::uint32_t{EPOLLIN} : 0U) |
                               (output_.empty() && !wants_writable_ ? 0U : std::uint32_t{EPOLLOUT});
  if (wanted != events_ && loop_.ModifyFd(peer_.get(), wanted)) events_ = wanted;
}

Status StreamBackend::Attach(unsigned pair, EventLoop& loop, Receiver receiver) {
  if (pair != 0 || &loop != &loop_) {
    return Fail(Errc::kUnsupported,
                fmt::format("netdev '{}' has one queue, on the main thread", id_),
                "Leave out mq= and iothread=, or use -netdev tap.");
  }
  receiver_ = std::move(receiver);
  receiver_full_ = false;
  if (connected_) UpdateEvents();
  return {};
}

void StreamBackend::Detach(unsigned) {
  receiver_ = nullptr;
  if (connected_) UpdateEvents();
}

void StreamBackend::ReceiverReady(unsigned) {
  if (!connected_ || !receiver_full_) return;
  DeliverAll();
  if (connected_) UpdateEvents();
}

bool StreamBackend::Send(unsigned, std::span<const iovec> header_and_frame) {
  const std::size_t size = SizeOf(header_and_frame);
  if (!connected_ || size <= kHeaderSize || size > kHeaderSize + kLargestFrame) return true;
  if (!output_.empty()) {
    wants_writable_ = true;
    return false;
  }
  LengthBytes length = EncodeLength(size - kHeaderSize);
  pieces_.assign(1, {length.data(), length.size()});
  SkipBytes(header_and_frame, kHeaderSize, pieces_);
  msghdr message{};
  message.msg_iov = pieces_.data();
  message.msg_iovlen = std::min<std::size_t>(pieces_.size(), IOV_MAX);
  const ssize_t sent = ::sendmsg(peer_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
    wants_writable_ = true;
    UpdateEvents();
    return false;
  }
  // A peer that has gone is seen by reading.
  if (sent < 0 || static_cast<std::size_t>(sent) == kLengthSize + size - kHeaderSize) return true;
  AppendBytes(pieces_, static_cast<std::size_t>(sent), output_);
  UpdateEvents();
  return true;
}

void StreamBackend::FlushOutput() {
  while (output_begin_ < output_.size()) {
    const ssize_t sent = ::send(peer_.get(), output_.data() + output_begin_,
                                output_.size() - output_begin_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (sent < 0) break;  // gone: reading tells
    output_begin_ += static_cast<std::size_t>(sent);
  }
  output_.clear();
  output_begin_ = 0;
  if (std::exchange(wants_writable_, false) && writable_) writable_();
}

void StreamBackend::SetWritable(unsigned, std::function<void()> writable) {
  writable_ = std::move(writable);
}

std::string StreamBackend::Describe() const {
  if (connected_) {
    return fmt::format("{}{}", config_.server ? "connection from " : "",
                       config_.address.Describe());
  }
  return fmt::format("{} {}", config_.server ? "listening on" : "connecting to",
                     config_.address.Describe());
}

}  // namespace holdfast::devices::net
