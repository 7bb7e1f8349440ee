// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/queue_state.h"

#include <algorithm>
#include <string_view>

#include <holdfast/ram_block.h>

namespace holdfast::devices::virtio {
namespace {

// Indirect tables let a request have more buffers than its queue has entries.
constexpr std::size_t kMostRanges = 65536;
constexpr std::uint64_t kMostBytes = 0xffffffff;  // of a request (virtio 1.2, 2.7.5.2)

// The guest's addresses of what the pieces are, host addresses being the same in all of a block.
Status Describe(const AddressSpace& memory, const GuestIoVec& pieces,
                std::vector<SavedChain::Range>& to) {
  for (const iovec& piece : pieces.pieces()) {
    const auto* start = static_cast<const std::byte*>(piece.iov_base);
    for (std::uint64_t left = piece.iov_len; left > 0;) {
      std::uint64_t length = 0;
      for (const AddressSpace::Region& region : memory.regions()) {
        const auto view = region.block->host_view().subspan(region.block_offset, region.size);
        if (start < view.data() || start >= view.data() + view.size()) continue;
        const auto offset = static_cast<std::uint64_t>(start - view.data());
        length = std::min<std::uint64_t>(left, view.size() - offset);
        to.push_back({region.base.value() + offset, length});
        break;
      }
      if (length == 0) return Fail(Errc::kMalformed, "a request's memory is not there any more");
      start += length;
      left -= length;
    }
  }
  return {};
}

}  // namespace

Result<SavedChain> SavedChain::From(const AddressSpace& memory, const Chain& chain) {
  SavedChain saved{.id = chain.id, .slots = chain.slots, .readable = {}, .writable = {}};
  HF_TRY_STATUS(Describe(memory, chain.readable, saved.readable));
  HF_TRY_STATUS(Describe(memory, chain.writable, saved.writable));
  return saved;
}

Result<Chain> SavedChain::Pin(const AddressSpace& memory) const {
  Chain chain;
  chain.id = id;
  chain.slots = slots;
  for (const Range& range : readable) {
    HF_TRY_STATUS(
        memory.Pin(GuestAddress(range.address), range.length, MemoryAccess::kRead, chain.readable));
  }
  for (const Range& range : writable) {
    HF_TRY_STATUS(memory.Pin(GuestAddress(range.address), range.length, MemoryAccess::kWrite,
                             chain.writable));
  }
  return chain;
}

unsigned QueueState::EntriesUsed() const noexcept {
  unsigned used = 0;
  for (const SavedChain& chain : again) used += chain.slots;
  return used;
}

void QueueState::Visit(state::Fields& fields, std::uint16_t size) {
  fields.Value("position", position);
  fields.List("again", again, size, [](state::Fields& each, SavedChain& chain) {
    each.Value("id", chain.id);
    each.Value("slots", chain.slots);
    std::uint64_t bytes = 0;
    const auto visit = [&](std::string_view name, std::vector<SavedChain::Range>& ranges) {
      each.List(name, ranges, kMostRanges, [&](state::Fields& one, SavedChain::Range& range) {
        one.Value("address", range.address);
        one.Value("length", range.length);
        one.Check(range.length != 0 && range.length <= kMostBytes - bytes,
                  "a request has an empty buffer, or more bytes than there can be");
        if (one.ok()) bytes += range.length;
      });
    };
    visit("readable", chain.readable);
    visit("writable", chain.writable);
    each.Check(bytes != 0 && chain.slots != 0, "a request has no buffers");
  });
  if (!fields.loading() || !fields.ok()) return;
  fields.Check(EntriesUsed() <= size, "more requests are under way than the queue has entries");
}

}  // namespace holdfast::devices::virtio
