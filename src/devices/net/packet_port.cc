// SPDX-License-Identifier: Apache-2.0
#include "devices/net/packet_port.h"

#include <sys/epoll.h>

#include <cerrno>
#include <utility>

#include "base/event_loop.h"
#include "devices/net/frame.h"

namespace holdfast::devices::net {
namespace {

constexpr int kPacketsARound = 64;  // then others have their turn

}  // namespace

Status PacketPort::Attach(EventLoop& loop, NetBackend::Receiver receiver) {
  Detach();
  packet_.resize(kHeaderSize + kLargestFrame);
  HF_TRY_STATUS(loop.AddFd(fd(), EPOLLIN, [this](std::uint32_t events) { OnEvents(events); }));
  loop_ = &loop;
  receiver_ = std::move(receiver);
  events_ = EPOLLIN;
  return {};
}

void PacketPort::Detach() {
  if (loop_ != nullptr) loop_->RemoveFd(fd());
  loop_ = nullptr;
  receiver_ = nullptr;
  held_ = 0;
  full_ = false;
}

void PacketPort::OnEvents(std::uint32_t events) {
  if ((events & EPOLLOUT) != 0 && full_) {
    full_ = false;
    if (writable_) writable_();
  }
  if ((events & ~std::uint32_t{EPOLLOUT}) != 0 && held_ == 0) Receive();
  UpdateEvents();
}

void PacketPort::Receive() {
  for (int i = 0; i < kPacketsARound && receiver_; ++i) {
    const ssize_t size = Read(packet_);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0 || static_cast<std::size_t>(size) <= kHeaderSize) {
      // Nothing more, or an error of a datagram sent earlier, which this read has cleared.
      if (size < 0) return;
      continue;
    }
    held_ = static_cast<std::size_t>(size);
    if (!Offer()) return;
  }
}

bool PacketPort::Offer() {
  const iovec packet = {packet_.data(), held_};
  if (!receiver_({&packet, 1})) return false;
  held_ = 0;
  return true;
}

void PacketPort::ReceiverReady() {
  if (held_ == 0 || !receiver_ || !Offer()) return;
  UpdateEvents();
}

bool PacketPort::Send(std::span<const iovec> header_and_frame) {
  for (;;) {
    if (Write(header_and_frame) >= 0) return true;
    if (errno == EINTR) continue;
    if (errno != EAGAIN || loop_ == nullptr) return true;  // nobody takes it: dropped
    full_ = true;
    UpdateEvents();
    return false;
  }
}

void PacketPort::UpdateEvents() {
  if (loop_ == nullptr) return;
  const std::uint32_t wanted =
      (held_ == 0 ? std::uint32_t{EPOLLIN} : 0U) | (full_ ? std::uint32_t{EPOLLOUT} : 0U);
  if (wanted == events_) return;
  if (loop_->ModifyFd(fd(), wanted)) events_ = wanted;
}

}  // namespace holdfast::devices::net
