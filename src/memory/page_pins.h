// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>
#include <holdfast/mapping.h>

#include <atomic>
#include <cstdint>
#include <optional>
#include <span>

namespace holdfast {

/// How often each page of a RAM block is pinned: held by a device that reads or writes it right
/// now. Four bytes a page of address space, of which the host gives memory only to those near pages
/// that were pinned.
///
/// Thread-safety: all functions on any thread, lock-free. Pin() and FirstPinned() are sequentially
/// consistent: of a thread that pins and then looks at a flag, and another that sets the flag and
/// then looks for pins, at least one sees the other.
class PagePins {
 public:
  /// For `pages` pages, none of them pinned. @return the failed mmap
  static Result<PagePins> Create(std::uint64_t pages);

  /// All of [first, first + count), which must be inside the block.
  void Pin(std::uint64_t first, std::uint64_t count) noexcept;
  void Unpin(std::uint64_t first, std::uint64_t count) noexcept;
  /// The first page of the range that is pinned. Groups of 512 pages without one are skipped.
  std::optional<std::uint64_t> FirstPinned(std::uint64_t first, std::uint64_t count) const noexcept;

 private:
  using Counter = std::atomic<std::uint32_t>;
  static_assert(Counter::is_always_lock_free && sizeof(Counter) == sizeof(std::uint32_t));
  PagePins(Mapping counters, std::uint64_t pages);

  Mapping counters_;
  std::span<Counter> groups_;  // holders of a range that touches the 512 pages
  std::span<Counter> pages_;
};

}  // namespace holdfast
