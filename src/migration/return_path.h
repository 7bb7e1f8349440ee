// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include <holdfast/error.h>

#include "base/thread_annotations.h"
#include "migration/frames.h"

namespace holdfast::migration {

/// What the destination says on the main connection, heard by a thread of its own, so that its
/// error is known while the source still writes.
///
/// Thread-safety: Wait() on one thread. The channel must have been shut down before the end.
class ReturnPath {
 public:
  struct Events {
    /// The destination wants pages. On the thread of the return path.
    std::function<void(const PageRequest& request)> request = {};
    /// Nothing more comes: the connection ended, or an error came. On the same thread.
    std::function<void(const Error& error)> ended = {};
  };
  /// `channel` and `block_sizes` outlive it. @return the thread that could not be made
  static Result<std::unique_ptr<ReturnPath>> Start(Channel& channel,
                                                   std::span<const std::uint64_t> block_sizes,
                                                   Events events);
  ReturnPath(const ReturnPath&) = delete;
  ReturnPath& operator=(const ReturnPath&) = delete;
  ~ReturnPath();

  /// Waits for the next answer, which has to be `type`.
  /// @return what the destination said instead, what became of the connection, ETIMEDOUT
  Status Wait(FrameType type, std::chrono::milliseconds patience) HF_EXCLUDES(mutex_);
  /// After Wait(kResumed): the bytes of memory that the destination has not got yet.
  std::uint64_t missing() const HF_EXCLUDES(mutex_);
  /// Why nothing more comes, if nothing does.
  std::optional<Error> error() const HF_EXCLUDES(mutex_);

 private:
  ReturnPath(Channel& channel, std::span<const std::uint64_t> block_sizes, Events events)
      : reader_(channel), block_sizes_(block_sizes), events_(std::move(events)) {}
  void Hear();
  Status HearOne();

  FrameReader reader_;  // the thread's
  const std::span<const std::uint64_t> block_sizes_;
  const Events events_;
  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  std::vector<FrameType> answers_ HF_GUARDED_BY(mutex_);
  std::uint64_t missing_ HF_GUARDED_BY(mutex_) = 0;
  std::optional<Error> error_ HF_GUARDED_BY(mutex_);
  std::thread thread_;
};

}  // namespace holdfast::migration
