// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "devices/net/frame.h"
#include "devices/net/net_backend.h"

/// What the tests of the network back ends share.
namespace holdfast::devices::net::testing {

using Bytes = std::vector<std::byte>;

inline Bytes ToBytes(std::string_view text) {
  Bytes bytes;
  for (const char c : text) bytes.push_back(static_cast<std::byte>(c));
  return bytes;
}
inline Bytes ToBytes(std::initializer_list<int> values) {
  Bytes bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}
inline void Append(Bytes& bytes, const Bytes& more) {
  bytes.insert(bytes.end(), more.begin(), more.end());
}

/// Lets the loop run until `done()` or a minute is over. @return done()
inline bool RunUntil(EventLoop& loop, const std::function<bool()>& done) {
  const auto end = EventLoop::Clock::now() + std::chrono::minutes(1);
  while (!done()) {
    if (EventLoop::Clock::now() >= end) return false;
    if (!loop.RunOnce(std::chrono::milliseconds(100))) return false;
  }
  return true;
}
/// Lets the loop do all that is ready.
inline void RunReady(EventLoop& loop) {
  for (int i = 0; i < 20; ++i) {
    if (!loop.RunOnce(std::chrono::milliseconds(1))) return;
  }
}

/// The guest's side of a back end: keeps what arrives, without the headers.
class TestGuest {
 public:
  TestGuest(NetBackend& backend, EventLoop& loop) : backend_(backend) {
    attached_ = backend.Attach(0, loop, [this](std::span<const iovec> packet) {
      if (!taking_) return false;
      Bytes frame;
      AppendBytes(packet, kHeaderSize, frame);
      frames_.push_back(std::move(frame));
      return true;
    });
    backend.SetWritable(0, [this] { ++writable_; });
  }
  TestGuest(const TestGuest&) = delete;
  TestGuest& operator=(const TestGuest&) = delete;
  ~TestGuest() { backend_.Detach(0); }

  /// @return what the back end's Send() said
  bool Send(const Bytes& frame) {
    Bytes header(kHeaderSize);
    Bytes copy = frame;
    // In three pieces, as drivers do.
    const std::size_t first = copy.size() / 2;
    const iovec pieces[] = {{header.data(), header.size()},
                            {copy.data(), first},
                            {copy.data() + first, copy.size() - first}};
    return backend_.Send(0, pieces);
  }
  void set_taking(bool taking) { taking_ = taking; }
  const Status& attached() const { return attached_; }
  std::vector<Bytes>& frames() { return frames_; }
  int writable() const { return writable_; }

 private:
  NetBackend& backend_;
  Status attached_;
  bool taking_ = true;
  std::vector<Bytes> frames_;
  int writable_ = 0;
};

}  // namespace holdfast::devices::net::testing
