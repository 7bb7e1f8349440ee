// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <system_error>
#include <thread>
#include <vector>

#include "memory/content_hash.h"
#include "memory/dirty_trackers.h"
#include "memory/present_pages.h"

namespace holdfast {
namespace {

// What a thread takes at a time: a multiple of 64 pages, so that no two threads share a word of a
// bitmap.
constexpr std::uint64_t kHashedAtOnce = 4 * kMiB;
static_assert(kHashedAtOnce % (64 * kPageSize) == 0);

class HashTracker : public DirtyTracker {
 public:
  HashTracker(AddressSpace& memory, const Options& options)
      : threads_(options.threads != 0 ? options.threads
                                      : std::max(1U, std::thread::hardware_concurrency())),
        seed_(std::random_device()() | std::uint64_t{std::random_device()()} << 32),
        all_dirty_(options.all_dirty_at_first) {
    const DirtyPages layout(memory);
    for (const DirtyPages::Block& block : layout.blocks()) {
      blocks_.push_back({block.block, {}});
      blocks_.back().hashes.resize(block.pages.pages());
    }
  }

  Status Begin() {
    if (all_dirty_) return {};
    const auto start = std::chrono::steady_clock::now();
    HF_TRY_STATUS(Scan(nullptr));
    exchange_time_ = std::chrono::steady_clock::now() - start;
    return {};
  }

  Status Collect(DirtyPages& pages) override {
    if (stopped_) return {};
    if (all_dirty_) pages.SetAll();
    HF_TRY_STATUS(Scan(&pages));
    all_dirty_ = false;
    return {};
  }

  Status Stop() override {
    stopped_ = true;
    return {};
  }

  DirtyMethod method() const noexcept override { return DirtyMethod::kHash; }

 private:
  struct Block {
    RamBlock* block;
    std::vector<ContentHash> hashes;  // of each page, as it was the last time
  };

  // Hashes one step's pages and sets those that are not as they were.
  void ScanStep(Block& block, const PageBitmap& present, std::uint64_t offset,
                PageBitmap* changed) const {
    const std::span<const std::byte> view = block.block->host_view();
    const std::uint64_t end = std::min<std::uint64_t>(offset + kHashedAtOnce, view.size());
    for (std::uint64_t at = offset; at < end; at += kPageSize) {
      const std::uint64_t page = at / kPageSize;
      ContentHash hash;
      // What is not there is zero, and stays not there.
      if (present.Test(page)) hash = HashPage(view.subspan(at).first<kPageSize>(), seed_);
      if (hash == block.hashes[page]) continue;
      block.hashes[page] = hash;
      if (changed != nullptr) changed->Set(page, 1);
    }
  }

  Status Scan(DirtyPages* pages) {
    struct Step {
      Block* block;
      const PageBitmap* present;
      std::uint64_t offset;
    };
    std::vector<Step> steps;
    std::vector<PageBitmap> present(blocks_.size());
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      const RamBlock& block = *blocks_[i].block;
      present[i] = PageBitmap(block.size());
      // All in one go: to find the end of a piece the kernel walks all of it, whatever is asked.
      HF_TRY_STATUS(
          ForEachPresent(block, 0, block.size(), [&](std::uint64_t offset, std::uint64_t size) {
            present[i].Set(offset / kPageSize, size / kPageSize);
            return true;
          }));
      for (std::uint64_t offset = 0; offset < block.size(); offset += kHashedAtOnce)
        steps.push_back({&blocks_[i], &present[i], offset});
    }
    std::atomic<std::size_t> next = 0;
    const auto work = [&] {
      for (std::size_t i = next.fetch_add(1); i < steps.size(); i = next.fetch_add(1)) {
        const Step& step = steps[i];
        ScanStep(*step.block, *step.present, step.offset,
                 pages != nullptr ? pages->Find(*step.block->block) : nullptr);
      }
    };
    std::vector<std::jthread> threads;
    try {
      while (threads.size() + 1 < std::min<std::size_t>(threads_, steps.size()))
        threads.emplace_back(work);
    } catch (const std::system_error&) {
      // As many as the host gives; this one works in any case.
    }
    work();
    return {};  // the threads are joined
  }

  const unsigned threads_;
  const std::uint64_t seed_;
  bool all_dirty_;
  bool stopped_ = false;
  std::vector<Block> blocks_;
};

}  // namespace

Result<std::unique_ptr<DirtyTracker>> StartHashTracker(AddressSpace& memory,
                                                       const DirtyTracker::Options& options) {
  for (const AddressSpace::Region& region : memory.regions()) {
    if (region.block->conversion() == nullptr) continue;
    return Fail(Errc::kInvalidArgument,
                fmt::format("the contents of '{}' cannot be compared: some of it may be private to "
                            "the guest",
                            region.block->id()),
                "Use KVM's log (bitmap).");
  }
  HF_TRY_STATUS(memory.PopulateAll());
  auto tracker = std::make_unique<HashTracker>(memory, options);
  HF_TRY_STATUS(tracker->Begin());
  return tracker;
}

}  // namespace holdfast
