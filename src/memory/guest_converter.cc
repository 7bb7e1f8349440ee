// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <holdfast/guest_converter.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <algorithm>
#include <bit>
#include <thread>

#include "base/trace.h"

namespace holdfast {
namespace {

// Between two attempts at a busy page: first short, as most requests of a device are, then longer.
constexpr std::chrono::microseconds kFirstPause{20};
constexpr std::chrono::microseconds kLongestPause{1000};

}  // namespace

std::optional<ConversionEngineKind> GuestConverter::engine() const {
  for (const AddressSpace::Region& region : memory_.regions()) {
    if (region.block->conversion() != nullptr) return region.block->conversion()->engine().kind();
  }
  return std::nullopt;
}

Result<std::vector<BlockConversion::Piece>> GuestConverter::Pieces(GuestAddress from,
                                                                   std::uint64_t size,
                                                                   MemoryAttribute to) const {
  const auto refuse = [&](std::string_view why) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("cannot make guest physical range {:#x} + {:#x} {}: {}", from.value(),
                            size, to == MemoryAttribute::kPrivate ? "private" : "shared", why));
  };
  if (!IsPageAligned(from.value() | size)) return refuse("it is not page aligned");
  if (size == 0) return refuse("it is empty");
  const auto end = CheckedAdd(from.value(), size);
  if (!end) return refuse("it wraps");

  std::vector<BlockConversion::Piece> pieces;
  std::uint64_t found = 0;
  for (const AddressSpace::Region& region : memory_.regions()) {
    const std::uint64_t first = std::max(from.value(), region.base.value());
    const std::uint64_t stop = std::min(*end, region.base.value() + region.size);
    if (first >= stop) continue;
    BlockConversion* const conversion = region.block->conversion();
    if (conversion == nullptr) {
      if (to == MemoryAttribute::kPrivate)
        return refuse(fmt::format("the memory '{}' is always shared", region.block->id()));
      continue;
    }
    found += stop - first;
    pieces.push_back(
        {conversion, region.block_offset + (first - region.base.value()), stop - first});
  }
  if (to == MemoryAttribute::kPrivate && found != size) return refuse("it is not all RAM");
  return pieces;
}

GuestAddress GuestConverter::AddressOf(const BlockConversion::Piece& piece,
                                       std::uint64_t offset) const {
  for (const AddressSpace::Region& region : memory_.regions()) {
    if (region.block->conversion() == piece.block && offset >= region.block_offset &&
        offset - region.block_offset < region.size) {
      return region.base + (offset - region.block_offset);
    }
  }
  return {};  // a piece is made from a region
}

Result<GuestConverter::Outcome> GuestConverter::Convert(GuestAddress from, std::uint64_t size,
                                                        MemoryAttribute to) {
  HF_TRACE(kvm_convert_memory, from.value(), size,
           to == MemoryAttribute::kPrivate ? "shared_to_private" : "private_to_shared");
  const auto start = std::chrono::steady_clock::now();
  auto pieces = Pieces(from, size, to);
  if (!pieces) {
    refused_.fetch_add(1, std::memory_order_relaxed);
    return Fail(std::move(pieces).error());
  }
  auto outcome = BlockConversion::ConvertAll(*pieces, to);
  if (!outcome) {
    refused_.fetch_add(1, std::memory_order_relaxed);
    return Fail(std::move(outcome).error());
  }
  if (outcome->busy_offset) {
    busy_.fetch_add(1, std::memory_order_relaxed);
    return Outcome{.busy = AddressOf((*pieces)[outcome->busy_piece], *outcome->busy_offset)};
  }
  Count(to, outcome->changed_pages, std::chrono::steady_clock::now() - start);
  return Outcome{.changed_pages = outcome->changed_pages, .busy = {}};
}

Result<GuestConverter::Outcome> GuestConverter::ConvertPatiently(
    GuestAddress from, std::uint64_t size, MemoryAttribute to, std::chrono::milliseconds patience) {
  const auto give_up = std::chrono::steady_clock::now() + patience;
  for (auto pause = kFirstPause;; pause = std::min(2 * pause, kLongestPause)) {
    auto outcome = Convert(from, size, to);
    if (!outcome || !outcome->busy || std::chrono::steady_clock::now() >= give_up) return outcome;
    std::this_thread::sleep_for(pause);
  }
}

void GuestConverter::Count(MemoryAttribute to, std::uint64_t pages,
                           std::chrono::steady_clock::duration time) {
  const bool is_private = to == MemoryAttribute::kPrivate;
  (is_private ? to_private_ : to_shared_).fetch_add(1, std::memory_order_relaxed);
  (is_private ? private_pages_ : shared_pages_).fetch_add(pages, std::memory_order_relaxed);
  const auto us = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(time).count());
  const auto bucket =
      std::min<std::size_t>(static_cast<std::size_t>(std::bit_width(us)), time_us_.size() - 1);
  time_us_[bucket].fetch_add(1, std::memory_order_relaxed);
}

std::vector<GuestConverter::Range> GuestConverter::Ranges(GuestAddress from,
                                                          std::size_t most) const {
  std::vector<Range> ranges;
  // False when there is no room for more.
  const auto add = [&](GuestAddress start, std::uint64_t size, MemoryAttribute attribute) {
    if (!ranges.empty() && ranges.back().attribute == attribute &&
        ranges.back().start + ranges.back().size == start) {
      ranges.back().size += size;
      return true;
    }
    if (ranges.size() == most) return false;
    ranges.push_back({start, size, attribute});
    return true;
  };
  for (const AddressSpace::Region& region : memory_.regions()) {
    const std::uint64_t end = region.base.value() + region.size;
    const GuestAddress start = std::max(region.base, from);
    if (start.value() >= end) continue;
    const std::uint64_t size = end - start.value();
    const BlockConversion* const conversion = region.block->conversion();
    if (conversion == nullptr) {
      if (!add(start, size, MemoryAttribute::kShared)) return ranges;
      continue;
    }
    const std::uint64_t first =
        (region.block_offset + (start.value() - region.base.value())) / kPageSize;
    // The first may join the last one of the region before.
    for (const PageAttributes::Range& range : conversion->attributes().Ranges(
             first, size / kPageSize, most - ranges.size() + (ranges.empty() ? 0 : 1))) {
      if (!add(start + (range.first - first) * kPageSize, range.count * kPageSize, range.attribute))
        return ranges;
    }
  }
  return ranges;
}

std::uint64_t GuestConverter::private_bytes() const {
  std::uint64_t pages = 0;
  std::vector<const BlockConversion*> seen;  // a block may lie in several regions
  for (const AddressSpace::Region& region : memory_.regions()) {
    const BlockConversion* const conversion = region.block->conversion();
    if (conversion == nullptr || std::ranges::count(seen, conversion) != 0) continue;
    seen.push_back(conversion);
    pages += conversion->attributes().private_pages();
  }
  return pages * kPageSize;
}

GuestConverter::Statistics GuestConverter::statistics() const noexcept {
  const auto get = [](const Counter& counter) { return counter.load(std::memory_order_relaxed); };
  Statistics now{.to_private = get(to_private_),
                 .to_shared = get(to_shared_),
                 .private_pages = get(private_pages_),
                 .shared_pages = get(shared_pages_),
                 .busy = get(busy_),
                 .refused = get(refused_)};
  for (std::size_t i = 0; i < time_us_.size(); ++i) now.time_us[i] = get(time_us_[i]);
  return now;
}

}  // namespace holdfast
