// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <span>
#include <string>

#include <holdfast/error.h>

namespace holdfast::migration {

/// A stream of bytes to the other side of a migration, both ways.
///
/// Errors carry an errno that says what kind they are: EPIPE, the other side closed the connection;
/// ETIMEDOUT, it stalls; ECANCELED, Shutdown() came. After an error the stream is of no use.
///
/// Thread-safety: one thread may read while another writes; Shutdown() from any thread.
class Channel {
 public:
  using Bytes = std::span<const std::byte>;

  Channel() = default;
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;
  virtual ~Channel() = default;

  /// Waits until `data` is full. @return "the other side closed the connection" if it ends before
  Status ReadAll(std::span<std::byte> data);
  /// Waits for at least one byte and reads at most as many as `data` (not empty) has room for.
  /// @return how many; as ReadAll, never zero
  virtual Result<std::size_t> ReadSome(std::span<std::byte> data) = 0;
  /// Waits until there is something to read, or the end, or an error that the next read tells.
  /// @return whether there is, in time
  virtual Result<bool> WaitReadable(std::chrono::milliseconds timeout) = 0;

  /// Writes all of `parts` in their order, without joining them first.
  virtual Status WriteAll(std::span<const Bytes> parts) = 0;
  Status WriteAll(Bytes data) { return WriteAll(std::array<Bytes, 1>{data}); }

  /// Both directions fail from now on, also calls that wait at this moment.
  virtual void Shutdown() noexcept = 0;
  /// No byte passes for so long while a call waits for one: an error says so. Zero, as at first: no
  /// limit. Not while another thread reads or writes.
  virtual void SetStallTimeout(std::chrono::milliseconds timeout) = 0;

  /// For messages: "tcp:192.0.2.1:4444".
  virtual const std::string& peer() const noexcept = 0;
  /// To be polled beside others for the end of it (POLLRDHUP), not for what there is to read. -1:
  /// it has none.
  virtual int fd() const noexcept { return -1; }
  /// Whether what passes is encrypted.
  virtual bool encrypted() const noexcept { return false; }
};

/// Whether an error of a channel says that the other side closed the connection, or that the
/// connection broke. A stall counts.
bool IsConnectionLost(const Error& error) noexcept;

}  // namespace holdfast::migration
