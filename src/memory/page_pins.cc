// SPDX-License-Identifier: Apache-2.0
#include "memory/page_pins.h"

#include <holdfast/units.h>
#include <sys/mman.h>

#include <algorithm>

namespace holdfast {
namespace {

constexpr std::uint64_t kGroup = 512;

std::uint64_t Groups(std::uint64_t pages) {
  return (pages + kGroup - 1) / kGroup;
}

}  // namespace

PagePins::PagePins(Mapping counters, std::uint64_t pages)
    : counters_(std::move(counters)),
      // Zeroed memory is an array of counters that are 0: they are implicit-lifetime types.
      groups_(reinterpret_cast<Counter*>(counters_.data()), Groups(pages)),
      pages_(groups_.data() + groups_.size(), pages) {}

Result<PagePins> PagePins::Create(std::uint64_t pages) {
  const std::uint64_t size = AlignUp((Groups(pages) + pages) * sizeof(Counter), kPageSize);
  HF_TRY(Mapping counters, Mapping::Map({.size = size,
                                         .prot = PROT_READ | PROT_WRITE,
                                         .flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE},
                                        "the counters of pinned pages"));
  return PagePins(std::move(counters), pages);
}

void PagePins::Pin(std::uint64_t first, std::uint64_t count) noexcept {
  if (count == 0) return;
  // The group first: who finds it at 0 has come before all of this pin.
  for (std::uint64_t group = first / kGroup; group <= (first + count - 1) / kGroup; ++group)
    groups_[group].fetch_add(1);
  for (Counter& page : pages_.subspan(first, count)) page.fetch_add(1);
}

void PagePins::Unpin(std::uint64_t first, std::uint64_t count) noexcept {
  if (count == 0) return;
  // Release: what the device did with the page comes before.
  for (Counter& page : pages_.subspan(first, count)) page.fetch_sub(1);
  for (std::uint64_t group = first / kGroup; group <= (first + count - 1) / kGroup; ++group)
    groups_[group].fetch_sub(1);
}

std::optional<std::uint64_t> PagePins::FirstPinned(std::uint64_t first,
                                                   std::uint64_t count) const noexcept {
  const std::uint64_t end = first + count;
  for (std::uint64_t at = first; at < end;) {
    const std::uint64_t stop = std::min(end, (at / kGroup + 1) * kGroup);
    if (groups_[at / kGroup].load() != 0) {
      for (; at < stop; ++at) {
        if (pages_[at].load() != 0) return at;
      }
    }
    at = stop;
  }
  return std::nullopt;
}

}  // namespace holdfast
