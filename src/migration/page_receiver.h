// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <holdfast/error.h>

#include "base/thread_annotations.h"
#include "migration/frames.h"

namespace holdfast {
class AddressSpace;
class RamBlock;
}  // namespace holdfast

namespace holdfast::migration {

/// Puts the pages of one kPages frame, whose header `reader` has just read, where they belong.
///
/// Thread-safety: an object for each connection.
class PageReceiver {
 public:
  /// Where the contents of a page go: exactly a page. Empty for one that is not wanted there.
  using Place = std::function<std::span<std::byte>(const PagesHead& head, std::uint64_t offset)>;
  /// A page is all zeroes.
  using Zero = std::function<Status(const PagesHead& head, std::uint64_t offset)>;

  /// @param block_sizes  bytes of each block, outliving this
  explicit PageReceiver(std::span<const std::uint64_t> block_sizes) : block_sizes_(block_sizes) {}

  /// @return the frame's head; kMalformed; what the channel or `zero` says
  Result<PagesHead> Receive(FrameReader& reader, const FrameHeader& header, const Place& place,
                            const Zero& zero);
  /// Of the last frame: the offset of each page, with kZeroPage.
  std::span<const std::uint64_t> words() const noexcept { return words_; }

 private:
  Status ReadRaw(FrameReader& reader, const PagesHead& head, const Place& place);
  Status ReadPacked(FrameReader& reader, const PagesHead& head, const Place& place);

  const std::span<const std::uint64_t> block_sizes_;
  std::vector<std::byte> packed_;
  std::vector<std::byte> contents_;
  std::vector<std::uint64_t> words_;
};

/// Keeps connections together: no page of a pass is taken before all of the one before it are
/// there, on whatever connection.
///
/// Thread-safety: any thread.
class PassBarrier {
 public:
  explicit PassBarrier(unsigned connections) : connections_(connections) {}

  /// A connection has come to the end of `pass`: waits for the others.
  /// @return kMalformed for another pass than the next one; ECANCELED after Cancel()
  Status Arrive(std::uint64_t pass) HF_EXCLUDES(mutex_);
  /// Nobody waits any longer.
  void Cancel() HF_EXCLUDES(mutex_);

 private:
  const unsigned connections_;
  Mutex mutex_;
  std::condition_variable_any changed_;
  std::uint64_t pass_ HF_GUARDED_BY(mutex_) = 1;
  unsigned arrived_ HF_GUARDED_BY(mutex_) = 0;
  bool cancelled_ HF_GUARDED_BY(mutex_) = false;
};

}  // namespace holdfast::migration
