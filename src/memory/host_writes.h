// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/page_bitmap.h>

#include "base/thread_annotations.h"

namespace holdfast {

/// Which pages of guest RAM the monitor and its devices write through the host view, counted while
/// somebody wants to know; and who else writes where nobody counts.
///
/// Thread-safety: Enable() and Disable() on the main thread; everything else on any thread. While
/// nothing is counted, Mark() costs a fence and a load.
class HostWrites {
 public:
  HostWrites();
  HostWrites(const HostWrites&) = delete;
  HostWrites& operator=(const HostWrites&) = delete;
  ~HostWrites();

  /// Counts from now on, from zero, in the blocks of `memory`. Not while it is enabled.
  void Enable(const AddressSpace& memory);
  void Disable() noexcept { map_.store(nullptr, std::memory_order_seq_cst); }
  bool enabled() const noexcept { return map_.load(std::memory_order_relaxed) != nullptr; }
  /// Moves what was written since the last time to `pages`, and adds what is kept being written.
  /// Where external writers are or were, that is everything.
  void Collect(DirtyPages& pages);

  /// [offset, offset + size) of the block has been written, or is about to be and will be marked
  /// again.
  void Mark(const RamBlock& block, std::uint64_t offset, std::uint64_t size) noexcept;
  /// The same of host addresses.
  void MarkPieces(std::span<const iovec> pieces) noexcept;
  /// The range is written again and again until Drop(), which the caller owes. @return its name
  std::uint64_t Keep(RamBlock& block, std::uint64_t offset, std::uint64_t size);
  void Drop(std::uint64_t id) noexcept;

  /// `who` writes without a count, until RemoveExternal(). @return its name
  std::uint64_t AddExternal(std::string who);
  void RemoveExternal(std::uint64_t id) noexcept;
  /// Those there are.
  std::vector<std::string> Externals() const;

 private:
  struct Kept {
    RamBlock* block;
    std::uint64_t offset;
    std::uint64_t size;
  };
  class Map;

  std::atomic<Map*> map_{nullptr};  // null: nobody counts
  // All that there ever were: a device may be about to mark one when it goes out of use.
  std::vector<std::unique_ptr<Map>> maps_;
  mutable Mutex mutex_;
  std::uint64_t next_id_ HF_GUARDED_BY(mutex_) = 1;
  std::map<std::uint64_t, Kept> kept_ HF_GUARDED_BY(mutex_);
  std::map<std::uint64_t, std::string> externals_ HF_GUARDED_BY(mutex_);
  bool external_since_collect_ HF_GUARDED_BY(mutex_) = false;
};

}  // namespace holdfast
