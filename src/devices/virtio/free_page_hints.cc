// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/free_page_hints.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

namespace holdfast::devices::virtio {
namespace {

// Command ids (5.5.6): two with a meaning, and those of rounds, from where QEMU has them.
constexpr std::uint32_t kStop = 0;
constexpr std::uint32_t kDone = 1;
constexpr std::uint32_t kFirstRound = 0x80000000;

}  // namespace

void FreePageHints::Start(Sink sink) {
  const MutexLock lock(mutex_);
  // Not one of the rounds before: a guest may be late with its hints.
  last_id_ = std::max(last_id_ + 1, kFirstRound);
  End(State::kAsked, last_id_);
  sink_ = std::move(sink);
}

void FreePageHints::Stop() {
  const MutexLock lock(mutex_);
  if (state_ != State::kIdle) End(State::kStopped, kStop);
}

void FreePageHints::Finish() {
  const MutexLock lock(mutex_);
  if (state_ != State::kIdle) End(State::kIdle, kDone);
}

void FreePageHints::Forget() noexcept {
  const MutexLock lock(mutex_);
  End(State::kIdle, kDone);
}

void FreePageHints::Reset() noexcept {
  const MutexLock lock(mutex_);
  End(State::kIdle, kStop);
}

void FreePageHints::End(State state, std::uint32_t command) noexcept {
  state_ = state;
  command_ = command;
  sink_ = {};
}

std::uint32_t FreePageHints::command() const noexcept {
  const MutexLock lock(mutex_);
  return command_;
}

FreePageHints::State FreePageHints::state() const noexcept {
  const MutexLock lock(mutex_);
  return state_;
}

Status FreePageHints::Take(const Chain& chain, const AddressSpace& memory) {
  const MutexLock lock(mutex_);
  if (!chain.readable.empty()) {
    std::uint32_t id = 0;
    const auto bytes = std::as_writable_bytes(std::span(&id, 1));
    if (chain.readable.CopyOut(0, bytes) != bytes.size()) {
      return Fail(Errc::kMalformed, "a command id of free page hinting is too short");
    }
    if (state_ == State::kAsked && id == command_) {
      state_ = State::kNaming;
    } else if (state_ == State::kNaming) {
      state_ = State::kNamed;
    }
  }
  if (state_ == State::kNaming) Name(chain, memory);
  return {};
}

void FreePageHints::Name(const Chain& chain, const AddressSpace& memory) const {
  for (const iovec& piece : chain.writable.pieces()) {
    const auto* const start = static_cast<const std::byte*>(piece.iov_base);
    for (const AddressSpace::Region& region : memory.regions()) {
      // A piece lies in one block, however many regions that has.
      const std::span<std::byte> view = region.block->host_view();
      if (start < view.data() || start >= view.data() + view.size()) continue;
      const auto offset = static_cast<std::uint64_t>(start - view.data());
      const std::uint64_t first = AlignUp(offset, kPageSize);
      const std::uint64_t end = AlignDown(offset + piece.iov_len, kPageSize);
      if (first < end && sink_) sink_(*region.block, first, end - first);
      break;
    }
  }
}

}  // namespace holdfast::devices::virtio
