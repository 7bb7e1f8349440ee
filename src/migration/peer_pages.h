// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>

#include <holdfast/error.h>
#include <holdfast/lazy_population.h>
#include <holdfast/page_bitmap.h>

#include "base/thread_annotations.h"
#include "migration/frames.h"

namespace holdfast::migration {

/// The destination's memory in post-copy: what is missing is asked of the source, which answers on
/// whatever connection; whoever reads those hands the pages in. Without a connection whoever needs
/// a page waits for the next one, on which everything that has not come is asked for again.
///
/// Thread-safety: any thread.
class PeerPages final : public PageSource {
 public:
  using Lost = std::function<void(const FrameWriter& writer, const Error& error)>;

  /// @param missing  the pages that have to be asked for; all others are there
  /// @param lost  a connection cannot be written; on the thread of whoever needs memory
  PeerPages(DirtyPages missing, Lost lost) : missing_(std::move(missing)), lost_(std::move(lost)) {}

  /// Asks for the missing pages of the range; of memory that is filled through a buffer for all, as
  /// what was there has been given up.
  Status Read(const RamBlock& block, std::uint64_t offset, std::span<std::byte> to) override
      HF_EXCLUDES(mutex_);
  const DirtyPages& missing() const noexcept { return missing_; }

  /// From here on pages are asked for with `writer`, the destination's on the main connection:
  /// first those that somebody waits for. @return what became of the connection
  Status Attach(std::shared_ptr<FrameWriter> writer) HF_EXCLUDES(mutex_);
  /// Nothing more is asked for until Attach(). The threads that hand pages in have ended.
  void Detach() HF_EXCLUDES(mutex_);
  /// Whether somebody waits, and nothing has come for so long.
  bool Stalled(std::chrono::milliseconds patience) const HF_EXCLUDES(mutex_);

  /// Where a page that has come goes. Empty: nobody asked for it, or another connection has begun
  /// to answer. @param connection  who asks, until its Arrived()
  std::span<std::byte> Place(const void* connection, const PagesHead& head, std::uint64_t offset)
      HF_EXCLUDES(mutex_);
  /// All pages of a frame are where they belong. @return kMalformed for one that nobody asked for
  Status Arrived(const void* connection, const PagesHead& head,
                 std::span<const std::uint64_t> words) HF_EXCLUDES(mutex_);
  /// Nothing more comes: who waits gets this error, and so does everybody later. Nobody is between
  /// Place() and Arrived(): the memory that Place() gave goes with who waits.
  void Fail(const Error& error) HF_EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;
  struct Wait {
    std::uint32_t block;
    std::uint64_t offset;
    std::span<std::byte> to;
    PageRequest request;  // the pages that have not come are set
    std::uint32_t left;
    Clock::time_point since = Clock::now();
    // Between Place() and Arrived() of this one the memory has to stay.
    const void* answering = nullptr;
  };
  Status Ask(std::uint32_t block, std::uint64_t offset, std::span<std::byte> to, bool in_place)
      HF_EXCLUDES(mutex_);
  // The one that `connection` may answer; null: there is none.
  Wait* Find(const void* connection, const PagesHead& head) HF_REQUIRES(mutex_);
  static bool Wanted(const Wait& wait, std::uint64_t offset) noexcept;

  const DirtyPages missing_;
  const Lost lost_;
  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  // Whoever writes at the moment shares it: it may be detached meanwhile.
  std::shared_ptr<FrameWriter> writer_ HF_GUARDED_BY(mutex_);
  std::uint64_t next_id_ HF_GUARDED_BY(mutex_) = 1;
  std::map<std::uint64_t, Wait*> waits_ HF_GUARDED_BY(mutex_);
  Clock::time_point heard_ HF_GUARDED_BY(mutex_);  // the last sign of a page
  std::optional<Error> error_ HF_GUARDED_BY(mutex_);
};

}  // namespace holdfast::migration
