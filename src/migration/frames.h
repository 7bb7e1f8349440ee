// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <holdfast/error.h>

#include "base/hash.h"
#include "base/thread_annotations.h"
#include "migration/channel.h"
#include "migration/wire.h"

namespace holdfast::migration {

/// Sends frames over one connection.
///
/// Thread-safety: any thread; a frame is sent whole. `channel` outlives the writer.
class FrameWriter {
 public:
  explicit FrameWriter(Channel& channel) noexcept : channel_(channel) {}

  Status Write(FrameType type, std::span<const Channel::Bytes> payload) HF_EXCLUDES(mutex_);
  Status Write(FrameType type, Channel::Bytes payload = {}) {
    return Write(type, std::span(&payload, 1));
  }
  /// Tells the other side why it is over; what becomes of it does not matter any more.
  void WriteError(const Error& error);
  /// Bytes that were sent.
  std::uint64_t sent() const HF_EXCLUDES(mutex_);

 private:
  Channel& channel_;
  mutable Mutex mutex_;
  Hasher64 hasher_ HF_GUARDED_BY(mutex_);
  std::uint64_t sequence_ HF_GUARDED_BY(mutex_) = 0;
  std::uint64_t sent_ HF_GUARDED_BY(mutex_) = 0;
};

/// Receives frames from one connection: Next(), then the payload with Read() in pieces and End(),
/// or Payload() at once.
///
/// Thread-safety: one thread. `channel` outlives the reader.
class FrameReader {
 public:
  explicit FrameReader(Channel& channel) noexcept : channel_(channel) {}

  /// Waits for the next frame; kAlive frames are passed over.
  /// @param patience  how long the other side may say nothing
  /// @return kMalformed; the channel's error; ETIMEDOUT in a sentence; and what a kError frame says
  Result<FrameHeader> Next(std::chrono::milliseconds patience);
  /// The next piece of the payload, all of `to`, which its size has room for.
  Status Read(std::span<std::byte> to);
  /// After all of the payload. @return kMalformed if it is not what was sent
  Status End();
  /// All of the payload, checked.
  Result<std::vector<std::byte>> Payload();
  /// Next(), which has to be of this type, without payload or with all of it.
  Result<std::vector<std::byte>> Expect(FrameType type, std::chrono::milliseconds patience);

 private:
  Channel& channel_;
  Hasher64 hasher_;
  std::uint64_t sequence_ = 0;
  FrameHeader header_;
};

/// Whether an error is what the other side said in a kError frame, so that it knows of it.
bool SaidByPeer(const Error& error) noexcept;
/// The error for a frame that makes no sense where it came. @return kMalformed
Error Unexpected(FrameType type);

}  // namespace holdfast::migration
