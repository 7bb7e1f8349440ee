// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include <holdfast/units.h>

namespace holdfast {

class AddressSpace;
class RamBlock;

/// One bit for each 4 KiB page of a RAM block.
///
/// Thread-safety: as a std::vector.
class PageBitmap {
 public:
  PageBitmap() = default;
  /// For a block of `size` bytes, a page multiple; no page is set.
  explicit PageBitmap(std::uint64_t size)
      : pages_(size / kPageSize), words_((pages_ + kBits - 1) / kBits) {}

  std::uint64_t pages() const noexcept { return pages_; }
  bool Test(std::uint64_t page) const noexcept {
    return page < pages_ && (words_[page / kBits] >> page % kBits & 1) != 0;
  }
  /// Of a range, what lies beyond the end is not looked at.
  void Set(std::uint64_t first, std::uint64_t count) noexcept;
  void Clear(std::uint64_t first, std::uint64_t count) noexcept;
  void SetAll() noexcept { Set(0, pages_); }
  void ClearAll() noexcept;
  /// How many pages are set.
  std::uint64_t count() const noexcept;
  bool empty() const noexcept { return count() == 0; }
  /// Sets what is set in `other` too, which must be of the same size. @return pages newly set
  std::uint64_t Merge(const PageBitmap& other) noexcept;
  /// Sets page `page` + i for each bit i that is set.
  void MergeWord(std::uint64_t page, std::uint64_t bits) noexcept;

  /// Pages that follow each other and are all set.
  struct Run {
    std::uint64_t first;  ///< page number in the block
    std::uint64_t count;
    std::uint64_t offset() const noexcept { return first * kPageSize; }  ///< bytes
    std::uint64_t size() const noexcept { return count * kPageSize; }    ///< bytes
  };
  /// The first run at or after page `from`, cut to `limit` pages.
  std::optional<Run> NextRun(std::uint64_t from, std::uint64_t limit = ~0ULL) const noexcept;
  /// Calls fn(Run) for all runs, in order.
  template <typename Fn>
  void ForEachRun(Fn&& fn) const {
    for (auto run = NextRun(0); run; run = NextRun(run->first + run->count)) fn(*run);
  }

  /// Bit p % 64 of word p / 64 is page p; bits beyond the last page are 0.
  std::span<const std::uint64_t> words() const noexcept { return words_; }

 private:
  static constexpr std::uint64_t kBits = 64;
  // The first page at or after `from` that is set (or not), pages_ if there is none.
  std::uint64_t Next(std::uint64_t from, bool set) const noexcept;

  std::uint64_t pages_ = 0;
  std::vector<std::uint64_t> words_;
};

/// A bitmap for each RAM block of an address space: pages that were written.
///
/// Thread-safety: as a std::vector.
class DirtyPages {
 public:
  struct Block {
    RamBlock* block;  ///< outlives this
    PageBitmap pages;
  };

  DirtyPages() = default;
  /// For the blocks of `memory`, in the order in which its regions name them first; nothing is set.
  explicit DirtyPages(const AddressSpace& memory);

  std::span<Block> blocks() noexcept { return blocks_; }
  std::span<const Block> blocks() const noexcept { return blocks_; }
  /// Null for a block that is not of the address space.
  PageBitmap* Find(const RamBlock& block) noexcept;
  const PageBitmap* Find(const RamBlock& block) const noexcept;
  /// Pages set in all blocks.
  std::uint64_t count() const noexcept;
  void ClearAll() noexcept;
  void SetAll() noexcept;
  /// Sets what is set in `other`, which is of the same address space. @return pages newly set
  std::uint64_t Merge(const DirtyPages& other) noexcept;

 private:
  std::vector<Block> blocks_;
};

}  // namespace holdfast
