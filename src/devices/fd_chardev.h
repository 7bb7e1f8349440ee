// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "base/event_loop.h"
#include "devices/chardev.h"
#include "devices/output_queue.h"

namespace holdfast::devices {

/// What all chardevs with a file descriptor at their far end share: buffering, flow control,
/// waking.
///
/// Descriptors are watched edge-triggered. So nothing is re-armed per event, and a hang-up that
/// stays (a pty without slave, a closed pipe) wakes the loop once instead of spinning.
class FdChardev : public Chardev {
 public:
  FdChardev(const FdChardev&) = delete;
  FdChardev& operator=(const FdChardev&) = delete;
  ~FdChardev() override;

  std::size_t Write(std::span<const std::byte> data) noexcept final;
  void SetReceiver(Receiver receiver) final;
  void SetWritable(WritableCallback writable) final;
  void ReceiverReady() noexcept final;
  void Flush() noexcept final;

 protected:
  static constexpr int kNone = -1;

  explicit FdChardev(EventLoop& loop) : loop_(loop) {}
  /// Makes and watches the descriptor that other threads wake the loop through. Once, first.
  Status Start();

  /// Uses `input` to read and `output` to write from now on; either may be kNone, both may be the
  /// same. They must not block (regular files and sockets need no O_NONBLOCK) and stay the
  /// caller's, who calls Disconnect() before closing them.
  Status Connect(int input, int output);
  /// Stops using both; what is queued is dropped, and so is all output until Connect().
  void Disconnect();
  /// Writes what can be written without waiting.
  void DrainOutput();

  /// End of input, or an error of it; nothing more is read. May Disconnect() and Connect().
  virtual void OnInputEnd() {}
  /// Writing failed for good; output is dropped from now on. May Disconnect() and Connect().
  virtual void OnOutputError(int /*os_errno*/) {}

  EventLoop& loop() { return loop_; }

 private:
  static constexpr std::size_t kChunk = 4096;  // read at once
  static constexpr int kRounds = 16;           // of reading or writing before others have a turn

  struct End {
    int fd = kNone;
    bool ready = false;         // no EAGAIN since the last event
    bool always_ready = false;  // a regular file: epoll does not take it
    bool socket = false;
  };

  Status Watch(End& end, std::uint32_t events);
  void OnEvents(std::uint32_t events, bool input, bool output);
  void OnKick();
  void Kick() noexcept;
  void PumpInput();
  void EndInput();
  void EndOutput();
  void StartLinger();
  ssize_t ReadSome();
  ssize_t WriteSome(std::array<iovec, 2>& pieces, int count) const;

  EventLoop& loop_;
  UniqueFd kick_;  // eventfd: Write() and ReceiverReady() wake the loop
  OutputQueue queue_;
  std::atomic<bool> receiver_ready_ = false;

  // The rest is the loop thread's.
  Receiver receiver_;
  WritableCallback writable_;
  End in_;
  End out_;
  std::array<std::byte, kChunk> chunk_{};
  std::span<const std::byte> pending_;  // in chunk_: read but not yet taken
  std::optional<EventLoop::TimerId> linger_;
};

}  // namespace holdfast::devices
