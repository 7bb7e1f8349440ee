// SPDX-License-Identifier: Apache-2.0
#include "migration/peer_pages.h"

#include <holdfast/ram_block.h>

#include <algorithm>
#include <array>
#include <vector>

namespace holdfast::migration {

Status PeerPages::Read(const RamBlock& block, std::uint64_t offset, std::span<std::byte> to) {
  const auto blocks = missing_.blocks();
  const auto found =
      std::ranges::find_if(blocks, [&](const auto& one) { return one.block == &block; });
  const auto index = static_cast<std::uint32_t>(found - blocks.begin());
  const bool in_place = to.data() == block.host_view().data() + offset;
  for (std::size_t at = 0; at < to.size(); at += kMostFrameBytes) {
    const auto piece = to.subspan(at, std::min(kMostFrameBytes, to.size() - at));
    HF_TRY_STATUS(Ask(index, offset + at, piece, in_place));
  }
  return {};
}

Status PeerPages::Ask(std::uint32_t block, std::uint64_t offset, std::span<std::byte> to,
                      bool in_place) {
  const PageBitmap& missing = missing_.blocks()[block].pages;
  Wait wait{.block = block, .offset = offset, .to = to, .request = {}, .left = 0};
  PageRequest& request = wait.request;
  request.block = block;
  request.offset = offset;
  request.count = static_cast<std::uint32_t>(to.size() / kPageSize);
  // Small ones are a page fault's, or a device's; the background asks for more at once.
  constexpr std::uint32_t kUrgentPages = 32;
  request.urgent = request.count <= kUrgentPages;
  for (std::uint32_t i = 0; i < request.count; ++i) {
    if (in_place && !missing.Test(offset / kPageSize + i)) continue;
    request.wanted[i / 64] |= std::uint64_t{1} << i % 64;
    ++wait.left;
  }
  if (wait.left == 0) return {};
  std::array<std::byte, PageRequest::kSize> bytes;
  std::shared_ptr<FrameWriter> writer;
  {
    const MutexLock lock(mutex_);
    if (error_) return holdfast::Fail(*error_);
    request.id = next_id_++;
    waits_.emplace(request.id, &wait);
    bytes = EncodeRequest(request);
    writer = writer_;
  }
  if (writer != nullptr) {
    const Status sent = writer->Write(FrameType::kRequest, bytes);
    // It is asked for again when there is another connection.
    if (!sent) lost_(*writer, sent.error());
    writer.reset();
  }
  const MutexLock lock(mutex_);
  while (wait.left != 0 && !error_) changed_.wait(mutex_);
  waits_.erase(request.id);
  if (wait.left != 0) return holdfast::Fail(*error_);
  return {};
}

Status PeerPages::Attach(std::shared_ptr<FrameWriter> writer) {
  std::vector<PageRequest> again;
  {
    const MutexLock lock(mutex_);
    writer_ = writer;
    heard_ = Clock::now();
    for (auto& [id, wait] : waits_) {
      if (wait->left != 0) again.push_back(wait->request);
    }
  }
  for (const PageRequest& request : again)
    HF_TRY_STATUS(writer->Write(FrameType::kRequest, EncodeRequest(request)));
  return {};
}

void PeerPages::Detach() {
  const MutexLock lock(mutex_);
  writer_.reset();
  for (auto& [id, wait] : waits_) wait->answering = nullptr;
}

bool PeerPages::Stalled(std::chrono::milliseconds patience) const {
  const auto before = Clock::now() - patience;
  const MutexLock lock(mutex_);
  return heard_ < before && std::ranges::any_of(
                                waits_,
                                [&](const auto& entry) {
                                  return entry.second->left != 0 && entry.second->since < before;
                                });
}

bool PeerPages::Wanted(const Wait& wait, std::uint64_t offset) noexcept {
  if (offset < wait.offset || offset - wait.offset >= wait.to.size()) return false;
  const std::uint64_t page = (offset - wait.offset) / kPageSize;
  return (wait.request.wanted[page / 64] >> page % 64 & 1) != 0;
}

// A second connection that answers the same request could still write to the memory when the first
// one has let its owner go.
PeerPages::Wait* PeerPages::Find(const void* connection, const PagesHead& head) {
  const auto found = waits_.find(head.request);
  if (found == waits_.end() || found->second->block != head.block) return nullptr;
  Wait* const wait = found->second;
  return wait->answering == nullptr || wait->answering == connection ? wait : nullptr;
}

// The caller of Ask() is there until Arrived() or Fail(), and so is the memory.
std::span<std::byte> PeerPages::Place(const void* connection, const PagesHead& head,
                                      std::uint64_t offset) {
  const MutexLock lock(mutex_);
  Wait* const wait = Find(connection, head);
  if (wait == nullptr || !Wanted(*wait, offset)) return {};
  wait->answering = connection;
  heard_ = Clock::now();
  return wait->to.subspan(offset - wait->offset, kPageSize);
}

Status PeerPages::Arrived(const void* connection, const PagesHead& head,
                          std::span<const std::uint64_t> words) {
  const MutexLock lock(mutex_);
  Wait* const wait = Find(connection, head);
  for (const std::uint64_t word : words) {
    const std::uint64_t offset = word & ~kZeroPage;
    if (wait == nullptr || !Wanted(*wait, offset)) {
      return holdfast::Fail(Errc::kMalformed,
                            "the other side of the migration sent a page that nobody asked for");
    }
    const std::uint64_t page = (offset - wait->offset) / kPageSize;
    if ((word & kZeroPage) != 0)
      std::ranges::fill(wait->to.subspan(page * kPageSize, kPageSize), std::byte{0});
    wait->request.wanted[page / 64] &= ~(std::uint64_t{1} << page % 64);
    if (--wait->left == 0) changed_.notify_all();
  }
  if (wait != nullptr) wait->answering = nullptr;
  heard_ = Clock::now();
  return {};
}

void PeerPages::Fail(const Error& error) {
  const MutexLock lock(mutex_);
  if (!error_) error_ = error;
  changed_.notify_all();
}

}  // namespace holdfast::migration
