// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace holdfast {

/// Who may touch a page of guest memory.
enum class MemoryAttribute : std::uint8_t {
  kShared,   ///< guest and host
  kPrivate,  ///< the guest only
};

/// Whether each page of a RAM block is shared or private.
///
/// A radix tree of 512 entries a level in which a range of one attribute is one entry: setting a
/// range costs what its two ends cost plus one entry for each whole 1 GiB (or 2 MiB at the ends),
/// whatever it holds, and finding the next change skips such entries.
///
/// Thread-safety: Set() by one thread at a time; all const functions lock-free on any thread. One
/// that runs beside a Set() sees each page of its range as it was before or as it is after, and all
/// other pages as they are.
class PageAttributes {
 public:
  /// A block of `pages` pages (4 KiB each) that all have `initial`.
  PageAttributes(std::uint64_t pages, MemoryAttribute initial);
  PageAttributes(const PageAttributes&) = delete;
  PageAttributes& operator=(const PageAttributes&) = delete;
  ~PageAttributes();

  std::uint64_t pages() const noexcept { return pages_; }
  /// How many are private.
  std::uint64_t private_pages() const noexcept {
    return private_pages_.load(std::memory_order_relaxed);
  }
  /// Of page `page`, which must be below pages().
  MemoryAttribute At(std::uint64_t page) const noexcept;
  /// The first page of [first, first + count), which must be inside the block, that has `wanted`.
  std::optional<std::uint64_t> Find(std::uint64_t first, std::uint64_t count,
                                    MemoryAttribute wanted) const noexcept;
  /// Whether all of [first, first + count) has `attribute`.
  bool All(std::uint64_t first, std::uint64_t count, MemoryAttribute attribute) const noexcept;
  /// Gives [first, first + count), which must be inside the block, `attribute`.
  /// @return how many pages had the other one
  std::uint64_t Set(std::uint64_t first, std::uint64_t count, MemoryAttribute attribute);

  /// Pages of one attribute that follow each other.
  struct Range {
    std::uint64_t first;
    std::uint64_t count;
    MemoryAttribute attribute;
    friend bool operator==(const Range&, const Range&) = default;
  };
  /// [first, first + count) as the longest ranges of one attribute, in order; after `most` of them
  /// it ends.
  std::vector<Range> Ranges(std::uint64_t first, std::uint64_t count,
                            std::size_t most = SIZE_MAX) const;

  static constexpr MemoryAttribute Opposite(MemoryAttribute attribute) noexcept {
    return attribute == MemoryAttribute::kShared ? MemoryAttribute::kPrivate
                                                 : MemoryAttribute::kShared;
  }

 private:
  class Top;
  const std::uint64_t pages_;
  std::atomic<std::uint64_t> private_pages_;
  std::unique_ptr<Top> top_;
};

}  // namespace holdfast
