// SPDX-License-Identifier: Apache-2.0
#include <holdfast/page_attributes.h>

#include <algorithm>
#include <array>
#include <bit>

namespace holdfast {

// Not an anonymous namespace: PageAttributes::Top has members of these types.
namespace attribute_tree {

constexpr std::uint64_t kFanOut = 512;
// What Find() returns for "none": a plain number stays in a register on the way up, which an
// optional does not, and single pages are looked up before every conversion and device access.
constexpr std::uint64_t kNone = ~0ULL;

// 512 pages with both attributes among them, a bit each: set for private.
class Leaf {
 public:
  static constexpr std::uint64_t kSpan = kFanOut;

  void Fill(MemoryAttribute attribute) noexcept {
    const bool is_private = attribute == MemoryAttribute::kPrivate;
    for (auto& word : bits_) word.store(is_private ? ~0ULL : 0, std::memory_order_relaxed);
    private_pages_ = is_private ? kSpan : 0;
  }

  MemoryAttribute At(std::uint64_t page) const noexcept {
    const std::uint64_t word = bits_[page / 64].load(std::memory_order_acquire);
    return (word >> (page % 64) & 1U) != 0 ? MemoryAttribute::kPrivate : MemoryAttribute::kShared;
  }

  std::uint64_t Find(std::uint64_t first, std::uint64_t end,
                     MemoryAttribute wanted) const noexcept {
    for (std::uint64_t at = first; at < end; at = (at / 64 + 1) * 64) {
      std::uint64_t word = bits_[at / 64].load(std::memory_order_acquire);
      if (wanted == MemoryAttribute::kShared) word = ~word;
      word &= Mask(at, end);
      if (word != 0) return at / 64 * 64 + static_cast<std::uint64_t>(std::countr_zero(word));
    }
    return kNone;
  }

  // Returns how many pages changed.
  std::uint64_t Set(std::uint64_t first, std::uint64_t end, MemoryAttribute attribute) noexcept {
    std::uint64_t changed = 0;
    for (std::uint64_t at = first; at < end; at = (at / 64 + 1) * 64) {
      std::atomic<std::uint64_t>& word = bits_[at / 64];
      const std::uint64_t before = word.load(std::memory_order_relaxed);
      const std::uint64_t mask = Mask(at, end);
      const std::uint64_t after =
          attribute == MemoryAttribute::kPrivate ? before | mask : before & ~mask;
      word.store(after, std::memory_order_release);
      changed += static_cast<std::uint64_t>(std::popcount(before ^ after));
    }
    private_pages_ += attribute == MemoryAttribute::kPrivate ? changed : 0 - changed;
    return changed;
  }

  std::uint64_t private_pages() const noexcept { return private_pages_; }

 private:
  // The bits of the word of page `at` from it on, up to page `end`.
  static std::uint64_t Mask(std::uint64_t at, std::uint64_t end) noexcept {
    const std::uint64_t last = std::min(end - at / 64 * 64, std::uint64_t{64});
    const std::uint64_t below_end = last == 64 ? ~0ULL : (1ULL << last) - 1;
    return below_end & ~0ULL << (at % 64);
  }

  std::array<std::atomic<std::uint64_t>, kSpan / 64> bits_{};
  std::uint64_t private_pages_ = 0;  // the writer's
};

// Child::kSpan pages that are all shared, all private, or as `child` says.
//
// A child stays when its pages become uniform: a reader may still be in it, and what it sees there
// is right for every page that nobody is changing. It is used again when they become mixed again.
template <typename Child>
class Entry {
 public:
  static constexpr std::uint64_t kSpan = Child::kSpan;

  void Fill(MemoryAttribute attribute) noexcept {
    state_.store(Uniform(attribute), std::memory_order_release);
  }

  MemoryAttribute At(std::uint64_t page) const noexcept {
    switch (state_.load(std::memory_order_acquire)) {
      case State::kShared:
        return MemoryAttribute::kShared;
      case State::kPrivate:
        return MemoryAttribute::kPrivate;
      case State::kMixed:
        break;
    }
    return child_->At(page);
  }

  std::uint64_t Find(std::uint64_t first, std::uint64_t end,
                     MemoryAttribute wanted) const noexcept {
    const State state = state_.load(std::memory_order_acquire);
    if (state == State::kMixed) return child_->Find(first, end, wanted);
    return state == Uniform(wanted) ? first : kNone;
  }

  std::uint64_t Set(std::uint64_t first, std::uint64_t end, MemoryAttribute attribute) {
    const State state = state_.load(std::memory_order_relaxed);
    if (state == Uniform(attribute)) return 0;
    if (first == 0 && end == kSpan) {
      const std::uint64_t before = private_pages();
      Fill(attribute);
      return attribute == MemoryAttribute::kPrivate ? kSpan - before : before;
    }
    if (state != State::kMixed) {
      if (!child_) child_ = std::make_unique<Child>();
      child_->Fill(PageAttributes::Opposite(attribute));
      // Only now do readers go there.
      state_.store(State::kMixed, std::memory_order_release);
    }
    const std::uint64_t changed = child_->Set(first, end, attribute);
    if (child_->private_pages() == 0) Fill(MemoryAttribute::kShared);
    if (child_->private_pages() == kSpan) Fill(MemoryAttribute::kPrivate);
    return changed;
  }

  std::uint64_t private_pages() const noexcept {
    switch (state_.load(std::memory_order_relaxed)) {
      case State::kShared:
        return 0;
      case State::kPrivate:
        return kSpan;
      case State::kMixed:
        break;
    }
    return child_->private_pages();
  }

 private:
  enum class State : std::uint8_t { kShared, kPrivate, kMixed };
  static constexpr State Uniform(MemoryAttribute attribute) noexcept {
    return attribute == MemoryAttribute::kPrivate ? State::kPrivate : State::kShared;
  }

  std::unique_ptr<Child> child_;  // written before state_ says kMixed for the first time
  std::atomic<State> state_{State::kShared};
};

// What both kinds of tables of entries do. Most ranges lie in one entry.
template <typename Slots>
std::uint64_t FindInEntries(const Slots& entries, std::uint64_t first, std::uint64_t end,
                            MemoryAttribute wanted) noexcept {
  constexpr std::uint64_t kSpan = Slots::value_type::kSpan;
  for (std::uint64_t at = first; at < end;) {
    const std::uint64_t base = at / kSpan * kSpan;
    const std::uint64_t stop = std::min(end, base + kSpan);
    const std::uint64_t page = entries[at / kSpan].Find(at - base, stop - base, wanted);
    if (page != kNone) return base + page;
    at = stop;
  }
  return kNone;
}

template <typename Slots>
std::uint64_t SetInEntries(Slots& entries, std::uint64_t first, std::uint64_t end,
                           MemoryAttribute attribute) {
  constexpr std::uint64_t kSpan = Slots::value_type::kSpan;
  std::uint64_t changed = 0;
  for (std::uint64_t at = first; at < end;) {
    const std::uint64_t base = at / kSpan * kSpan;
    const std::uint64_t stop = std::min(end, base + kSpan);
    changed += entries[at / kSpan].Set(at - base, stop - base, attribute);
    at = stop;
  }
  return changed;
}

// 1 GiB, in entries of 2 MiB.
class Table {
 public:
  static constexpr std::uint64_t kSpan = kFanOut * Leaf::kSpan;

  void Fill(MemoryAttribute attribute) noexcept {
    for (auto& entry : entries_) entry.Fill(attribute);
    private_pages_ = attribute == MemoryAttribute::kPrivate ? kSpan : 0;
  }
  MemoryAttribute At(std::uint64_t page) const noexcept {
    return entries_[page / Leaf::kSpan].At(page % Leaf::kSpan);
  }
  std::uint64_t Find(std::uint64_t first, std::uint64_t end,
                     MemoryAttribute wanted) const noexcept {
    return FindInEntries(entries_, first, end, wanted);
  }
  std::uint64_t Set(std::uint64_t first, std::uint64_t end, MemoryAttribute attribute) {
    const std::uint64_t changed = SetInEntries(entries_, first, end, attribute);
    private_pages_ += attribute == MemoryAttribute::kPrivate ? changed : 0 - changed;
    return changed;
  }
  std::uint64_t private_pages() const noexcept { return private_pages_; }

 private:
  std::array<Entry<Leaf>, kFanOut> entries_;
  std::uint64_t private_pages_ = 0;  // the writer's
};

}  // namespace attribute_tree

// The whole block, in entries of 1 GiB. The last may reach beyond the end; nobody asks for that
// part, so that it does no harm that it has an attribute too.
class PageAttributes::Top {
  using Table = attribute_tree::Table;
  using Entry = attribute_tree::Entry<Table>;

 public:
  Top(std::uint64_t pages, MemoryAttribute initial)
      : entries_((pages + Table::kSpan - 1) / Table::kSpan) {
    for (auto& entry : entries_) entry.Fill(initial);
  }
  std::vector<Entry>& entries() noexcept { return entries_; }
  const std::vector<Entry>& entries() const noexcept { return entries_; }

 private:
  std::vector<Entry> entries_;
};

PageAttributes::PageAttributes(std::uint64_t pages, MemoryAttribute initial)
    : pages_(pages),
      private_pages_(initial == MemoryAttribute::kPrivate ? pages : 0),
      top_(std::make_unique<Top>(pages, initial)) {}

PageAttributes::~PageAttributes() = default;

MemoryAttribute PageAttributes::At(std::uint64_t page) const noexcept {
  return top_->entries()[page / attribute_tree::Table::kSpan].At(page %
                                                                 attribute_tree::Table::kSpan);
}

std::optional<std::uint64_t> PageAttributes::Find(std::uint64_t first, std::uint64_t count,
                                                  MemoryAttribute wanted) const noexcept {
  const std::uint64_t page =
      attribute_tree::FindInEntries(top_->entries(), first, first + count, wanted);
  if (page == attribute_tree::kNone) return std::nullopt;
  return page;
}

bool PageAttributes::All(std::uint64_t first, std::uint64_t count,
                         MemoryAttribute attribute) const noexcept {
  return attribute_tree::FindInEntries(top_->entries(), first, first + count,
                                       Opposite(attribute)) == attribute_tree::kNone;
}

std::uint64_t PageAttributes::Set(std::uint64_t first, std::uint64_t count,
                                  MemoryAttribute attribute) {
  const std::uint64_t end = first + count;
  std::uint64_t changed = attribute_tree::SetInEntries(top_->entries(), first, end, attribute);
  // One thread at a time changes it: no need of a locked addition.
  private_pages_.store(private_pages_.load(std::memory_order_relaxed) +
                           (attribute == MemoryAttribute::kPrivate ? changed : 0 - changed),
                       std::memory_order_relaxed);
  return changed;
}

std::vector<PageAttributes::Range> PageAttributes::Ranges(std::uint64_t first, std::uint64_t count,
                                                          std::size_t most) const {
  std::vector<Range> ranges;
  const std::uint64_t end = first + count;
  for (std::uint64_t at = first; at < end;) {
    const MemoryAttribute attribute = At(at);
    const std::uint64_t stop = Find(at, end - at, Opposite(attribute)).value_or(end);
    // Where a Set() is under way beside this, the page itself may have changed meanwhile.
    const std::uint64_t length = std::max<std::uint64_t>(stop - at, 1);
    if (!ranges.empty() && ranges.back().attribute == attribute) {
      ranges.back().count += length;
    } else {
      if (ranges.size() == most) break;
      ranges.push_back({at, length, attribute});
    }
    at += length;
  }
  return ranges;
}

}  // namespace holdfast
