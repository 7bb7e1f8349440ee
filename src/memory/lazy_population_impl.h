// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/address_space.h>
#include <holdfast/lazy_population.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "base/thread_annotations.h"
#include "memory/population_block.h"
#include "memory/population_gate.h"
#include "memory/userfault.h"

namespace holdfast {

/// What LazyPopulation does. The address space keeps it for as long as it lives, as a device may be
/// inside Need() whenever it ends.
///
/// Thread-safety: Begin(), Finish() and End() on the main thread; Need(), NeedAll() and what the
/// threads call on any. No lock is held while a chunk is filled or a callback runs.
class LazyPopulation::Impl final : public PopulationGate {
 public:
  Impl(AddressSpace& memory, PageSource& source, Options options, UniqueFd userfaultfd);
  ~Impl() override = default;

  Status Begin();
  Status Need(const RamBlock& block, std::uint64_t offset, std::uint64_t size) override;
  Status NeedAll() override;
  void Retry();
  void SetBackgroundSpeed(std::uint64_t bytes_per_second);
  Status Finish();
  /// Ends an unfinished one: threads are joined, nobody is inside the source any more, and what is
  /// missing cannot be reached.
  void End();

  Progress progress() const;
  bool done() const noexcept { return done_.load(std::memory_order_acquire); }

 private:
  // Chunks [first, first + count) of a block.
  struct Piece {
    PopulationBlock* block = nullptr;
    std::uint64_t first = 0;
    std::uint64_t count = 0;
  };
  using Clock = std::chrono::steady_clock;

  Status CheckBlocks() const;
  Status StartThreads();
  void StopThreads();
  void ServeFaults();
  void HandleFault(std::uint64_t address);
  void FillInBackground();
  // Waits until there is something that the background may fill; empty: it is to end.
  std::optional<Piece> NextInBackground();
  // Takes absent chunks from `first` on, at most `limit`, to be filled by the caller.
  Piece Claim(PopulationBlock& block, std::uint64_t first, std::uint64_t limit) HF_REQUIRES(mutex_);
  std::optional<Piece> FindAbsent() HF_REQUIRES(mutex_);
  // Fills what was claimed, chunk by chunk where all at once fails.
  void Fill(const Piece& piece);
  void FillOnce(const Piece& piece, bool last_try);
  // Fills the piece, or waits for who does.
  Status NeedChunks(const Piece& piece);
  void CountIslands(const Piece& filled) HF_REQUIRES(mutex_);
  // The piece to fill for a fault in `chunk`: more where another island of pages would be too much.
  Piece AroundFault(PopulationBlock& block, std::uint64_t chunk) HF_REQUIRES(mutex_);

  AddressSpace& memory_;
  PageSource& source_;
  const Options options_;
  const Userfault faults_;
  UniqueFd stop_;  // an eventfd: the threads that serve faults are to end
  std::vector<std::unique_ptr<PopulationBlock>> blocks_;
  std::uint64_t total_ = 0;
  bool unbound_ = false;  // memslots are to be bound again
  std::vector<std::thread> threads_;

  std::atomic<bool> done_ = false;
  std::atomic<std::uint64_t> fault_count_ = 0;
  mutable Mutex mutex_;
  std::condition_variable_any changed_;              // a chunk's state, the speed, the end
  std::uint64_t missing_ HF_GUARDED_BY(mutex_) = 0;  // bytes
  unsigned filling_ HF_GUARDED_BY(mutex_) = 0;       // pieces
  std::map<std::pair<PopulationBlock*, std::uint64_t>, Error> failed_ HF_GUARDED_BY(mutex_);
  std::size_t cursor_block_ HF_GUARDED_BY(mutex_) = 0;  // where the background goes on
  std::uint64_t cursor_chunk_ HF_GUARDED_BY(mutex_) = 0;
  std::uint64_t speed_ HF_GUARDED_BY(mutex_) = 0;
  Clock::time_point not_before_ HF_GUARDED_BY(mutex_);  // the background reads again
  std::uint64_t islands_ HF_GUARDED_BY(mutex_) = 0;
  bool retried_ HF_GUARDED_BY(mutex_) = false;  // what had failed is waiting for the background
  bool ending_ HF_GUARDED_BY(mutex_) = false;
};

}  // namespace holdfast
