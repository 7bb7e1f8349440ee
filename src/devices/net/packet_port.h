// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <holdfast/error.h>

#include "devices/net/net_backend.h"

namespace holdfast {
class EventLoop;
}

namespace holdfast::devices::net {

/// An fd that carries a frame with each read and write: a queue of a tap, a datagram socket. Reads
/// only as long as the guest takes what comes, so that what is too much waits in the kernel.
///
/// Thread-safety: the thread of the loop it is attached to.
class PacketPort {
 public:
  PacketPort() = default;
  PacketPort(const PacketPort&) = delete;
  PacketPort& operator=(const PacketPort&) = delete;
  /// A derived class detaches in its destructor, while its fd is still there.
  virtual ~PacketPort() = default;

  Status Attach(EventLoop& loop, NetBackend::Receiver receiver);
  void Detach();
  void ReceiverReady();
  bool Send(std::span<const iovec> header_and_frame);
  void SetWritable(std::function<void()> writable) { writable_ = std::move(writable); }

 protected:
  /// Does not block.
  virtual int fd() const noexcept = 0;
  /// Reads one packet, header first, and returns its size with the header; errors as read().
  virtual ssize_t Read(std::span<std::byte> into) = 0;
  /// Writes one packet that has a header; errors as writev().
  virtual ssize_t Write(std::span<const iovec> header_and_frame) = 0;

 private:
  void OnEvents(std::uint32_t events);
  void Receive();
  bool Offer();
  void UpdateEvents();

  EventLoop* loop_ = nullptr;
  NetBackend::Receiver receiver_;
  std::function<void()> writable_;
  std::vector<std::byte> packet_;
  std::size_t held_ = 0;  // bytes of packet_ that the guest has no room for
  bool full_ = false;     // the last write found no room
  std::uint32_t events_ = 0;
};

}  // namespace holdfast::devices::net
