// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
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
constexpr std::uint64_t kStep = 4 * kMiB;
static_assert(kStep % (64 * kPageSize) == 0);

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
  Status ScanStep(Block& block, std::uint64_t offset, PageBitmap* changed) const {
    const std::span<const std::byte> view = block.block->host_view();
    const std::uint64_t size = std::min(kStep, view.size() - offset);
    const auto compare = [&](std::uint64_t at, const ContentHash& hash) {
      ContentHash& before = block.hashes[at / kPageSize];
      if (hash == before) return;
      before = hash;
      if (changed != nullptr) changed->Set(at / kPageSize, 1);
    };
    // What is not there is zero, and stays not there.
    std::uint64_t next = offset;
    const auto absent_until = [&](std::uint64_t end) {
      for (; next < end; next += kPageSize) compare(next, {});
    };
    HF_TRY_STATUS(
        ForEachPresent(*block.block, offset, size, [&](std::uint64_t from, std::uint64_t length) {
          absent_until(from);
          for (; next < from + length; next += kPageSize)
            compare(next, HashPage(view.subspan(next).first<kPageSize>(), seed_));
          return true;
        }));
    absent_until(offset + size);
    return {};
  }

  Status Scan(DirtyPages* pages) {
    struct Step {
      Block* block;
      std::uint64_t offset;
    };
    std::vector<Step> steps;
    for (Block& block : blocks_) {
      for (std::uint64_t offset = 0; offset < block.block->size(); offset += kStep)
        steps.push_back({&block, offset});
    }
    std::atomic<std::size_t> next = 0;
    std::mutex mutex;
    std::optional<Error> failure;
    const auto work = [&] {
      for (std::size_t i = next.fetch_add(1); i < steps.size(); i = next.fetch_add(1)) {
        Block& block = *steps[i].block;
        PageBitmap* const changed = pages != nullptr ? pages->Find(*block.block) : nullptr;
        if (Status scanned = ScanStep(block, steps[i].offset, changed); !scanned) {
          const std::lock_guard lock(mutex);
          if (!failure) failure = std::move(scanned).error();
        }
      }
    };
    {
      std::vector<std::jthread> threads;
      try {
        while (threads.size() + 1 < std::min<std::size_t>(threads_, steps.size()))
          threads.emplace_back(work);
      } catch (const std::system_error&) {
        // As many as the host gives; this one works in any case.
      }
      work();
    }
    if (failure) return Fail(*std::move(failure));
    return {};
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
