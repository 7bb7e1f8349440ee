// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include <holdfast/error.h>

namespace holdfast {
class EventLoop;
}

namespace holdfast::devices {

/// The host end of a serial line: terminal, file, pty, socket or nothing.
///
/// Output never blocks the caller: it goes into a bounded buffer that the main loop empties.
/// It outlives its user, who takes the callbacks back (sets empty ones) before going.
/// Thread-safety: Write() from any thread; the rest on the main loop's thread, where both
/// callbacks run too.
class Chardev {
 public:
  /// What arrives from the host side. Returns how many bytes it took; the rest is offered again
  /// after ReceiverReady(). An empty span is only that second offer with nothing to offer.
  using Receiver = std::function<std::size_t(std::span<const std::byte>)>;
  /// Called when the buffer has room again after a Write() that took less than all.
  using WritableCallback = std::function<void()>;

  Chardev() = default;
  Chardev(const Chardev&) = delete;
  Chardev& operator=(const Chardev&) = delete;
  virtual ~Chardev() = default;

  /// Queues what fits and returns how much that was. With no peer (socket without client, null)
  /// everything is taken and dropped, as in QEMU.
  virtual std::size_t Write(std::span<const std::byte> data) noexcept = 0;
  virtual void SetReceiver(Receiver receiver) = 0;
  virtual void SetWritable(WritableCallback writable) = 0;
  /// The receiver can take more input: it is called again on the loop's thread, even if with
  /// nothing. Any thread; one wake-up of the loop, so call it only after input was refused.
  virtual void ReceiverReady() noexcept = 0;
  /// Writes out what is queued, waiting at most about a second for a slow peer. For the end.
  virtual void Flush() noexcept = 0;
  /// What QEMU prints for it: "pty:/dev/pts/3", "file:PATH".
  virtual std::string Describe() const = 0;

  /// A chardev has one user. @return whether it is free; then it is taken until GiveBack()
  bool Take() noexcept { return !std::exchange(taken_, true); }
  void GiveBack() noexcept { taken_ = false; }

 private:
  bool taken_ = false;
};

/// Makes the chardev QEMU's `-serial` (and later `-chardev`) word describes: `stdio`, `null`,
/// `none` (also nullptr), `file:PATH`, `pty`, and ParseSocketWord()'s (stream_socket.h). The
/// `mon:` prefix is the caller's, who then passes `terminal_signals` = false: Ctrl-C on a terminal
/// goes to the guest instead of being SIGINT. Errors name the word and say what is accepted.
/// The process must ignore SIGPIPE: a reader that goes away is an error here, not the end.
Result<std::unique_ptr<Chardev>> MakeChardev(EventLoop& loop, std::string_view spec,
                                             bool terminal_signals = true);

}  // namespace holdfast::devices
