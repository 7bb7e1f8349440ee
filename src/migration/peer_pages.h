// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>

#include <holdfast/error.h>
#include <holdfast/lazy_population.h>
#include <holdfast/page_bitmap.h>

#include "base/thread_annotations.h"
#include "migration/frames.h"

namespace holdfast::migration {

/// The destination's memory in post-copy: what is missing is asked of the source, which answers on
/// whatever connection; whoever reads those hands the pages in.
///
/// Thread-safety: any thread.
class PeerPages final : public PageSource {
 public:
  /// @param missing  the pages that have to be asked for; all others are there
  /// `writer` is the destination's on the main connection; it outlives this.
  PeerPages(DirtyPages missing, FrameWriter& writer)
      : missing_(std::move(missing)), writer_(writer) {}

  /// Asks for the missing pages of the range; of memory that is filled through a buffer for all, as
  /// what was there has been given up.
  Status Read(const RamBlock& block, std::uint64_t offset, std::span<std::byte> to) override
      HF_EXCLUDES(mutex_);
  const DirtyPages& missing() const noexcept { return missing_; }

  /// Where a page that has come goes. Empty: nobody asked for it.
  std::span<std::byte> Place(const PagesHead& head, std::uint64_t offset) HF_EXCLUDES(mutex_);
  /// All pages of a frame are where they belong. @return kMalformed for one that nobody asked for
  Status Arrived(const PagesHead& head, std::span<const std::uint64_t> words) HF_EXCLUDES(mutex_);
  /// Nothing more comes: who waits gets this error, and so does everybody later. Nobody is between
  /// Place() and Arrived(): the memory that Place() gave goes with who waits.
  void Fail(const Error& error) HF_EXCLUDES(mutex_);

 private:
  struct Wait {
    std::uint32_t block;
    std::uint64_t offset;
    std::span<std::byte> to;
    PageRequest request;  // the pages that have not come are set
    std::uint32_t left;
  };
  Status Ask(std::uint32_t block, std::uint64_t offset, std::span<std::byte> to, bool in_place)
      HF_EXCLUDES(mutex_);
  static bool Wanted(const Wait& wait, std::uint64_t offset) noexcept;

  const DirtyPages missing_;
  FrameWriter& writer_;
  Mutex mutex_;
  std::condition_variable_any changed_;
  std::uint64_t next_id_ HF_GUARDED_BY(mutex_) = 1;
  std::map<std::uint64_t, Wait*> waits_ HF_GUARDED_BY(mutex_);
  std::optional<Error> error_ HF_GUARDED_BY(mutex_);
};

}  // namespace holdfast::migration
