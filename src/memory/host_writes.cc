// SPDX-License-Identifier: Apache-2.0
#include "memory/host_writes.h"

#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <algorithm>
#include <atomic>

namespace holdfast {
namespace {

// Orders what was written to guest memory before the look at whether it is counted. Not
// std::atomic_thread_fence, which g++ refuses in a ThreadSanitizer build; guest memory is nothing
// that the sanitizer would follow.
void Fence() noexcept {
  __sync_synchronize();
}

}  // namespace

// The bits of each block. Set by whoever wrote, taken by one collector.
class HostWrites::Map {
 public:
  explicit Map(const AddressSpace& memory) {
    const DirtyPages layout(memory);
    for (const DirtyPages::Block& block : layout.blocks())
      blocks_.emplace_back(*block.block, block.pages.words().size());
  }

  bool Fits(const AddressSpace& memory) const {
    const DirtyPages layout(memory);
    return std::ranges::equal(layout.blocks(), blocks_, {}, &DirtyPages::Block::block,
                              &Block::block);
  }
  void Reset() noexcept {
    for (Block& block : blocks_) {
      for (Word& word : block.words) word.store(0, std::memory_order_relaxed);
    }
  }

  void Mark(const RamBlock& ram, std::uint64_t offset, std::uint64_t size) noexcept {
    const auto block = std::ranges::find(blocks_, &ram, &Block::block);
    if (block == blocks_.end() || size == 0) return;
    const std::uint64_t end = (offset + size - 1) / kPageSize + 1;
    for (std::uint64_t page = offset / kPageSize; page < end;) {
      const std::uint64_t stop = std::min(end, (page / 64 + 1) * 64);
      const std::uint64_t bits = stop - page == 64 ? ~0ULL : ((1ULL << (stop - page)) - 1);
      // Never skipped because the bit is set already: only this makes the bytes written before it
      // visible to the collector that takes the bit. Release, for the same reason.
      block->words[page / 64].fetch_or(bits << page % 64, std::memory_order_release);
      page = stop;
    }
  }
  void Mark(const iovec& piece) noexcept {
    const auto* const start = static_cast<const std::byte*>(piece.iov_base);
    for (const Block& block : blocks_) {
      const std::span<const std::byte> view = block.block->host_view();
      if (start < view.data() || start >= view.data() + view.size()) continue;
      Mark(*block.block, static_cast<std::uint64_t>(start - view.data()), piece.iov_len);
      return;
    }
  }
  void Take(DirtyPages& pages) noexcept {
    for (Block& block : blocks_) {
      PageBitmap* const to = pages.Find(*block.block);
      for (std::size_t i = 0; i < block.words.size(); ++i) {
        if (block.words[i].load(std::memory_order_relaxed) == 0) continue;
        const std::uint64_t bits = block.words[i].exchange(0, std::memory_order_acquire);
        if (to != nullptr) to->MergeWord(i * 64, bits);
      }
    }
  }

 private:
  using Word = std::atomic<std::uint64_t>;
  struct Block {
    Block(RamBlock& ram, std::size_t count) : block(&ram), words(count) {}
    RamBlock* block;
    std::vector<Word> words;
  };
  std::vector<Block> blocks_;  // never grows: its words cannot move
};

HostWrites::HostWrites() = default;
HostWrites::~HostWrites() = default;

void HostWrites::Enable(const AddressSpace& memory) {
  if (maps_.empty() || !maps_.back()->Fits(memory)) maps_.push_back(std::make_unique<Map>(memory));
  maps_.back()->Reset();
  {
    const MutexLock lock(mutex_);
    external_since_collect_ = !externals_.empty();
  }
  // Against the fence in Mark(): who does not see this has written before it.
  map_.store(maps_.back().get(), std::memory_order_seq_cst);
  Fence();
}

void HostWrites::Collect(DirtyPages& pages) {
  if (Map* const map = map_.load(std::memory_order_acquire); map != nullptr) map->Take(pages);
  const MutexLock lock(mutex_);
  for (const auto& [id, kept] : kept_) {
    if (PageBitmap* const to = pages.Find(*kept.block); to != nullptr && kept.size != 0) {
      const std::uint64_t first = kept.offset / kPageSize;
      to->Set(first, (kept.offset + kept.size - 1) / kPageSize - first + 1);
    }
  }
  if (external_since_collect_) pages.SetAll();
  external_since_collect_ = !externals_.empty();
}

void HostWrites::Mark(const RamBlock& block, std::uint64_t offset, std::uint64_t size) noexcept {
  Fence();
  if (Map* const map = map_.load(std::memory_order_relaxed); map != nullptr)
    map->Mark(block, offset, size);
}

void HostWrites::MarkPieces(std::span<const iovec> pieces) noexcept {
  Fence();
  Map* const map = map_.load(std::memory_order_relaxed);
  if (map == nullptr) return;
  for (const iovec& piece : pieces) map->Mark(piece);
}

std::uint64_t HostWrites::Keep(RamBlock& block, std::uint64_t offset, std::uint64_t size) {
  const MutexLock lock(mutex_);
  kept_.emplace(next_id_, Kept{&block, offset, size});
  return next_id_++;
}

void HostWrites::Drop(std::uint64_t id) noexcept {
  const MutexLock lock(mutex_);
  const auto found = kept_.find(id);
  if (found == kept_.end()) return;
  Mark(*found->second.block, found->second.offset, found->second.size);
  kept_.erase(found);
}

std::uint64_t HostWrites::AddExternal(std::string who) {
  const MutexLock lock(mutex_);
  external_since_collect_ = true;
  externals_.emplace(next_id_, std::move(who));
  return next_id_++;
}

void HostWrites::RemoveExternal(std::uint64_t id) noexcept {
  const MutexLock lock(mutex_);
  externals_.erase(id);
}

std::vector<std::string> HostWrites::Externals() const {
  const MutexLock lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [id, who] : externals_) names.push_back(who);
  return names;
}

}  // namespace holdfast
