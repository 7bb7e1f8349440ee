// SPDX-License-Identifier: Apache-2.0
#include <holdfast/address_space.h>
#include <holdfast/page_bitmap.h>
#include <holdfast/ram_block.h>

#include <algorithm>

namespace holdfast {
namespace {

// Calls fn(word, mask) for the words that hold [first, first + count).
template <typename Fn>
void ForEachWord(std::uint64_t first, std::uint64_t count, Fn&& fn) {
  const std::uint64_t end = first + count;
  while (first < end) {
    const std::uint64_t stop = std::min(end, (first / 64 + 1) * 64);
    const std::uint64_t bits = stop - first == 64 ? ~0ULL : (1ULL << (stop - first)) - 1;
    fn(first / 64, bits << first % 64);
    first = stop;
  }
}

}  // namespace

void PageBitmap::Set(std::uint64_t first, std::uint64_t count) noexcept {
  if (first >= pages_) return;
  ForEachWord(first, std::min(count, pages_ - first),
              [&](std::uint64_t word, std::uint64_t mask) { words_[word] |= mask; });
}

void PageBitmap::Clear(std::uint64_t first, std::uint64_t count) noexcept {
  if (first >= pages_) return;
  ForEachWord(first, std::min(count, pages_ - first),
              [&](std::uint64_t word, std::uint64_t mask) { words_[word] &= ~mask; });
}

void PageBitmap::ClearAll() noexcept {
  std::ranges::fill(words_, 0);
}

std::uint64_t PageBitmap::count() const noexcept {
  std::uint64_t count = 0;
  for (const std::uint64_t word : words_) count += static_cast<std::uint64_t>(std::popcount(word));
  return count;
}

std::uint64_t PageBitmap::Merge(const PageBitmap& other) noexcept {
  std::uint64_t added = 0;
  for (std::size_t i = 0; i < std::min(words_.size(), other.words_.size()); ++i) {
    added += static_cast<std::uint64_t>(std::popcount(other.words_[i] & ~words_[i]));
    words_[i] |= other.words_[i];
  }
  return added;
}

void PageBitmap::MergeWord(std::uint64_t page, std::uint64_t bits) noexcept {
  if (page >= pages_) return;
  if (pages_ - page < 64) bits &= (1ULL << (pages_ - page)) - 1;
  const std::uint64_t shift = page % 64;
  words_[page / 64] |= bits << shift;
  if (shift != 0 && bits >> (64 - shift) != 0) words_[page / 64 + 1] |= bits >> (64 - shift);
}

std::uint64_t PageBitmap::Next(std::uint64_t from, bool set) const noexcept {
  while (from < pages_) {
    const std::uint64_t word = set ? words_[from / 64] : ~words_[from / 64];
    const std::uint64_t rest = word >> from % 64;
    if (rest != 0)
      return std::min(pages_, from + static_cast<std::uint64_t>(std::countr_zero(rest)));
    from = (from / 64 + 1) * 64;
  }
  return pages_;
}

std::optional<PageBitmap::Run> PageBitmap::NextRun(std::uint64_t from,
                                                   std::uint64_t limit) const noexcept {
  const std::uint64_t first = Next(from, true);
  if (first >= pages_ || limit == 0) return std::nullopt;
  return Run{first, std::min(limit, Next(first, false) - first)};
}

DirtyPages::DirtyPages(const AddressSpace& memory) {
  for (const AddressSpace::Region& region : memory.regions()) {
    if (Find(*region.block) == nullptr)
      blocks_.push_back({region.block, PageBitmap(region.block->size())});
  }
}

PageBitmap* DirtyPages::Find(const RamBlock& block) noexcept {
  const auto found = std::ranges::find(blocks_, &block, &Block::block);
  return found == blocks_.end() ? nullptr : &found->pages;
}
const PageBitmap* DirtyPages::Find(const RamBlock& block) const noexcept {
  const auto found = std::ranges::find(blocks_, &block, &Block::block);
  return found == blocks_.end() ? nullptr : &found->pages;
}

std::uint64_t DirtyPages::count() const noexcept {
  std::uint64_t count = 0;
  for (const Block& block : blocks_) count += block.pages.count();
  return count;
}

void DirtyPages::ClearAll() noexcept {
  for (Block& block : blocks_) block.pages.ClearAll();
}

void DirtyPages::SetAll() noexcept {
  for (Block& block : blocks_) block.pages.SetAll();
}

std::uint64_t DirtyPages::Merge(const DirtyPages& other) noexcept {
  std::uint64_t added = 0;
  for (Block& block : blocks_) {
    if (const PageBitmap* const from = other.Find(*block.block); from != nullptr)
      added += block.pages.Merge(*from);
  }
  return added;
}

}  // namespace holdfast
