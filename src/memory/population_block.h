// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/page_bitmap.h>
#include <holdfast/ram_block.h>

#include "memory/userfault.h"

namespace holdfast {

class PageSource;

/// How far a chunk of memory is.
enum class ChunkState : std::uint8_t { kAbsent, kFilling, kReady, kFailed };

/// One RAM block that is populated lazily: how its chunks come into being. Who fills what and when
/// is LazyPopulation's.
///
/// Thread-safety: Arm, Disarm and Close with nobody else at the block; Fill() of different chunks
/// on different threads; state() on any thread, set by LazyPopulation under its lock.
class PopulationBlock {
 public:
  /// `chunk`: bytes, a power of two.
  PopulationBlock(RamBlock& block, std::uint64_t chunk);

  RamBlock& block() const noexcept { return *block_; }
  std::uint64_t chunk_size() const noexcept { return chunk_; }
  std::uint64_t chunks() const noexcept { return states_.size(); }
  /// Bytes of `count` chunks from `first` on: the last one of the block may be smaller.
  std::uint64_t Bytes(std::uint64_t first, std::uint64_t count) const noexcept;
  /// Whether the guest's address for the block may lie at `address`.
  bool Contains(std::uint64_t address) const noexcept {
    return address - block_->guest_view_address() < block_->size();
  }

  ChunkState state(std::uint64_t chunk) const noexcept {
    return states_[chunk].load(std::memory_order_acquire);
  }
  void set_state(std::uint64_t chunk, ChunkState state) noexcept {
    states_[chunk].store(state, std::memory_order_release);
  }

  /// Before Arm(): only chunks with one of these pages are absent. Of guest_memfd more may become
  /// so, for the number of mappings is limited, but keep what they have.
  void SetMissing(const PageBitmap& missing);
  /// Runs of chunks that are ready.
  std::uint64_t ReadyRuns() const noexcept;
  /// Bytes that are not ready.
  std::uint64_t AbsentBytes() const noexcept;

  /// Empties what is absent; its pages are reported to `faults` from now on.
  Status Arm(const Userfault& faults);
  /// Fills `count` chunks from `first` on and lets go on who waits for them.
  /// @return the source's error, or a failed system call; then nobody sees any of it
  Status Fill(PageSource& source, const Userfault& faults, std::uint64_t first,
              std::uint64_t count);
  /// For a fault in a chunk that is ready: whoever had it goes on.
  Status Resume(const Userfault& faults, std::uint64_t chunk);
  /// Everything is populated: nothing is reported any more.
  Status Disarm(const Userfault& faults);
  /// Makes what is not ready inaccessible.
  void Close();
  /// Undoes Arm(), with the block empty.
  void Abandon(const Userfault& faults);

 private:
  std::span<std::byte> GuestView(std::uint64_t offset, std::uint64_t size) const noexcept {
    return block_->guest_view().subspan(offset, size);
  }
  Status MapGuestView(std::uint64_t offset, std::uint64_t size) const;
  // Calls fn(offset, size) for each run of chunks that are absent. @return its first error
  Status ForEachAbsent(const std::function<Status(std::uint64_t, std::uint64_t)>& fn) const;
  bool reserved() const noexcept { return block_->guest_memfd() != nullptr; }

  RamBlock* block_;
  std::uint64_t chunk_;
  bool keep_ = false;  // what absent chunks hold
  std::vector<std::atomic<ChunkState>> states_;
};

}  // namespace holdfast
