// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "base/thread_annotations.h"

namespace holdfast::devices {

/// The bounded buffer between threads that print and the loop that writes it out.
///
/// It also keeps the account of who has to wake the loop. A guest prints a byte an exit; a system
/// call for each to wake the loop would cost as much as the exit. So the queue is *awake* while
/// the loop is known to look at it again by itself, and only an append to a queue that is asleep
/// (or one that is filling up) asks for a wake-up.
///
/// Thread-safety: Append from any thread; the rest on the loop's thread.
class OutputQueue {
 public:
  static constexpr std::size_t kDefaultCapacity = std::size_t{64} * 1024;

  struct Appended {
    std::size_t taken;
    bool wake;  // the caller must wake the loop
  };

  explicit OutputQueue(std::size_t capacity = kDefaultCapacity) : bytes_(capacity) {}

  /// Takes what fits; with the queue closed everything, and drops it.
  Appended Append(std::span<const std::byte> data) noexcept HF_EXCLUDES(mutex_);

  /// Drops what is queued and, until Open(), all that comes. A queue starts closed.
  void Close() noexcept HF_EXCLUDES(mutex_);
  void Open() noexcept HF_EXCLUDES(mutex_);

  /// What is queued, oldest first, in up to two pieces; returns how many. The pieces stay valid and
  /// unchanged until Consume() or Close().
  int Peek(std::array<iovec, 2>& pieces) const noexcept HF_EXCLUDES(mutex_);
  /// Removes the oldest `count` bytes.
  void Consume(std::size_t count) noexcept HF_EXCLUDES(mutex_);

  /// Whether somebody whose Append took less than all should be told that there is room again; true
  /// once for each such time, and only when half of the queue is free.
  bool TakeWantsRoom() noexcept HF_EXCLUDES(mutex_);
  /// Goes to sleep if empty; returns whether it did.
  bool TrySleep() noexcept HF_EXCLUDES(mutex_);

 private:
  mutable Mutex mutex_;
  // The bytes themselves need no lock: producers write only free ones, the loop reads only queued
  // ones, and the lock orders what is which.
  std::vector<std::byte> bytes_;
  std::size_t head_ HF_GUARDED_BY(mutex_) = 0;
  std::size_t size_ HF_GUARDED_BY(mutex_) = 0;
  bool open_ HF_GUARDED_BY(mutex_) = false;
  bool awake_ HF_GUARDED_BY(mutex_) = false;
  bool wants_room_ HF_GUARDED_BY(mutex_) = false;
};

}  // namespace holdfast::devices
