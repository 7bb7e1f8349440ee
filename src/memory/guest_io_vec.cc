// SPDX-License-Identifier: Apache-2.0
#include <holdfast/conversion.h>
#include <holdfast/guest_io_vec.h>

#include <algorithm>
#include <cstring>

#include "memory/host_writes.h"

namespace holdfast {
namespace {

// Calls fn(address, length) for the parts of [offset, offset + length); returns how much there was.
template <typename Fn>
std::uint64_t ForEachPart(std::span<const iovec> pieces, std::uint64_t offset, std::uint64_t length,
                          Fn&& fn) {
  std::uint64_t done = 0;
  for (const iovec& piece : pieces) {
    if (done == length) break;
    if (offset >= piece.iov_len) {
      offset -= piece.iov_len;
      continue;
    }
    const std::uint64_t part = std::min<std::uint64_t>(piece.iov_len - offset, length - done);
    fn(static_cast<std::byte*>(piece.iov_base) + offset, part);
    done += part;
    offset = 0;
  }
  return done;
}

}  // namespace

void GuestIoVec::Unpin(std::size_t keep) noexcept {
  while (pins_.size() > keep) {
    const Held& last = pins_.back();
    last.block->Unpin(last.offset, last.size);
    pins_.pop_back();
  }
}

void GuestIoVec::TellWrites() noexcept {
  for (const std::uint64_t id : kept_) writes_->Drop(id);
  kept_.clear();
  // Kept ranges were marked when they were dropped; that all pieces count again costs nothing more.
  writes_->MarkPieces(pieces_);
  writes_ = nullptr;
}

std::size_t GuestIoVec::CopyOut(std::uint64_t offset, std::span<std::byte> to) const noexcept {
  std::byte* next = to.data();
  return ForEachPart(pieces_, offset, to.size(), [&](std::byte* address, std::uint64_t length) {
    std::memcpy(next, address, length);
    next += length;
  });
}

std::size_t GuestIoVec::CopyIn(std::uint64_t offset,
                               std::span<const std::byte> from) const noexcept {
  const std::byte* next = from.data();
  return ForEachPart(pieces_, offset, from.size(), [&](std::byte* address, std::uint64_t length) {
    std::memcpy(address, next, length);
    next += length;
  });
}

std::vector<iovec> GuestIoVec::Slice(std::uint64_t offset, std::uint64_t length) const {
  std::vector<iovec> parts;
  ForEachPart(pieces_, offset, length,
              [&](std::byte* address, std::uint64_t part) { parts.push_back({address, part}); });
  return parts;
}

}  // namespace holdfast
