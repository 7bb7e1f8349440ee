// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/page_bitmap.h>

#include "base/thread_annotations.h"
#include "migration/frames.h"
#include "object/throttle.h"

namespace holdfast::migration {

/// What of guest memory was sent. Thread-safety: any thread.
struct SentPages {
  std::atomic<std::uint64_t> normal = 0;  ///< pages with contents
  std::atomic<std::uint64_t> zero = 0;    ///< pages that were a bit
};

/// Keeps what is sent below so many bytes a second.
///
/// Thread-safety: any thread.
class RateLimit {
 public:
  /// 0: no limit.
  void Set(std::uint64_t bytes_per_second);
  /// Waits until `bytes` may go. @return kInvalidArgument once `cancelled`
  Status Wait(std::uint64_t bytes, const std::atomic<bool>& cancelled);

 private:
  object::Throttle throttle_;
};

/// Sends guest memory, a pass at a time, over one connection or several at once.
///
/// Thread-safety: one thread; it uses one for each further connection during a pass.
class PageSender {
 public:
  struct Options {
    bool zstd = false;
    int zstd_level = 1;
  };
  /// Everything referred to outlives the object. The first channel is the main one.
  PageSender(const AddressSpace& memory, std::vector<FrameWriter*> channels, const Options& options,
             RateLimit& limit, const std::atomic<bool>& cancelled);

  /// Ends the pass under way, and every later one, early: what it has not sent is in unsent().
  /// Thread-safety: any thread.
  void Interrupt() noexcept { interrupted_ = true; }
  /// Pages of interrupted passes that were not sent.
  const DirtyPages& unsent() const noexcept { return unsent_; }

  /// Sends what RAM holds; what it does not hold is zero at the other side, too.
  Status SendAll();
  /// Sends these pages.
  Status Send(const DirtyPages& pages);

  const SentPages& sent() const noexcept { return sent_; }
  /// Pages of the pass under way that were not sent yet. Thread-safety: any thread.
  std::uint64_t remaining() const noexcept { return remaining_.load(std::memory_order_relaxed); }
  std::uint64_t passes() const noexcept { return pass_.load(std::memory_order_relaxed); }

 private:
  struct Cursor;  // where a pass is
  struct Buffers;
  Status RunPass(const DirtyPages& which, const DirtyPages& present);
  Status SendFrom(Cursor& cursor, FrameWriter& channel);
  Status SendBatch(FrameWriter& channel, std::uint32_t block, const PageBitmap& present,
                   std::span<const std::uint64_t> pages, Buffers& buffers);

  const AddressSpace& memory_;
  const std::vector<FrameWriter*> channels_;
  const Options options_;
  RateLimit& limit_;
  const std::atomic<bool>& cancelled_;
  std::atomic<bool> interrupted_ = false;
  DirtyPages unsent_;
  SentPages sent_;
  std::atomic<std::uint64_t> remaining_ = 0;
  std::atomic<std::uint64_t> pass_ = 0;
};

/// Which of the pages in `which` may hold something; the others are zero and have no memory.
Result<DirtyPages> FindPresent(const AddressSpace& memory, const DirtyPages& which);

}  // namespace holdfast::migration
