// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

#include "devices/virtio/ring.h"

namespace holdfast::devices::virtio {
namespace {

// How many buffers one request may have. The specification's limit is the queue's size; drivers go
// beyond it with indirect tables, and what readv takes at once is what other devices allow them.
constexpr unsigned kMaxBuffers = 1024;

// Why memory could not be pinned, for the end of a sentence.
std::string_view WhyNot(const Status& pinned) {
  return pinned.error().code() == Errc::kPrivate ? "is private to the guest" : "is not RAM";
}

}  // namespace

Result<RingArea> RingArea::Pin(const AddressSpace& memory, std::string_view what,
                               GuestAddress address, std::uint64_t size, std::uint64_t alignment) {
  const auto refuse = [&](std::string_view why) {
    return Fail(Errc::kMalformed, fmt::format("the {} at guest physical address {:#x} {}", what,
                                              address.value(), why));
  };
  if (address.value() % alignment != 0) return refuse("is not aligned");
  RingArea area;
  if (const Status pinned = memory.Pin(address, size, MemoryAccess::kKeepWriting, area.pin_);
      !pinned)
    return refuse(WhyNot(pinned));
  if (area.pin_.pieces().size() != 1) return refuse("lies in two memory backends");
  area.base_ = static_cast<std::byte*>(area.pin_.pieces().front().iov_base);
  return area;
}

tl::unexpected<Error> Queue::Ring::Break(std::string why) {
  broken_ = true;
  return Fail(Errc::kMalformed, std::move(why));
}

Status Queue::Ring::AddBuffer(Chain& chain, const Descriptor& descriptor, unsigned count) {
  if (count >= std::max<unsigned>(kMaxBuffers, layout_.size)) {
    return Break("a request has too many buffers, or they are linked in a circle");
  }
  if (descriptor.length == 0) return Break("a buffer is empty");
  const bool write = (descriptor.flags & kDescriptorWrite) != 0;
  if (!write && !chain.writable.empty()) {
    return Break("a buffer to read comes after one to write");
  }
  GuestIoVec& to = write ? chain.writable : chain.readable;
  if (const Status pinned = memory_.Pin(GuestAddress(descriptor.address), descriptor.length,
                                        write ? MemoryAccess::kWrite : MemoryAccess::kRead, to);
      !pinned) {
    return Break(fmt::format("a buffer of {:#x} bytes at guest physical address {:#x} {}",
                             descriptor.length, descriptor.address, WhyNot(pinned)));
  }
  // 2.7.5.2: not more than 2^32 bytes; a device's byte counts have 32 bits.
  if (chain.readable.size() + chain.writable.size() > 0xffffffff) {
    return Break("a request is larger than 4 GiB");
  }
  return {};
}

Status Queue::Ring::AddTable(Chain& chain, const Descriptor& table, bool linked) {
  if (!layout_.indirect) return Break("an indirect table, which was not agreed on");
  if (table.length == 0 || table.length % kDescriptorSize != 0) {
    return Break(fmt::format("an indirect table of {} bytes", table.length));
  }
  const std::uint32_t entries = table.length / kDescriptorSize;
  GuestIoVec pin;
  if (const Status pinned =
          memory_.Pin(GuestAddress(table.address), table.length, MemoryAccess::kRead, pin);
      !pinned) {
    return Break(fmt::format("an indirect table at guest physical address {:#x} {}", table.address,
                             WhyNot(pinned)));
  }
  std::uint32_t index = 0;
  for (unsigned count = 0;; ++count) {
    std::array<std::byte, kDescriptorSize> bytes;
    pin.CopyOut(index * kDescriptorSize, bytes);
    struct {
      std::uint64_t address;
      std::uint32_t length;
      std::uint16_t first, second;
    } raw;
    static_assert(sizeof raw == kDescriptorSize);
    raw = std::bit_cast<decltype(raw)>(bytes);
    const Descriptor entry{.address = raw.address,
                           .length = raw.length,
                           .flags = linked ? raw.first : raw.second,
                           .next_or_id = linked ? raw.second : raw.first};
    if ((entry.flags & kDescriptorIndirect) != 0) return Break("an indirect table inside another");
    HF_TRY_STATUS(AddBuffer(chain, entry, count));
    if (linked) {
      if ((entry.flags & kDescriptorNext) == 0) return {};
      index = entry.next_or_id;
      if (index >= entries) return Break("an indirect table links to outside itself");
    } else if (++index == entries) {
      return {};
    }
  }
}

Result<Queue> Queue::Create(const AddressSpace& memory, const QueueLayout& layout) {
  if (layout.size == 0 || layout.size > kMaxQueueSize ||
      (!layout.packed && !std::has_single_bit(layout.size))) {
    return Fail(Errc::kMalformed, fmt::format("a queue cannot have {} entries", layout.size));
  }
  HF_TRY(std::unique_ptr<Ring> ring,
         layout.packed ? MakePackedRing(memory, layout) : MakeSplitRing(memory, layout));
  return Queue(std::move(ring));
}

Queue::Queue(std::unique_ptr<Ring> ring) : ring_(std::move(ring)) {}
Queue::Queue(Queue&&) noexcept = default;
Queue& Queue::operator=(Queue&&) noexcept = default;
Queue::~Queue() = default;

const QueueLayout& Queue::layout() const noexcept {
  return ring_->layout();
}
Result<std::optional<Chain>> Queue::Pop() {
  if (ring_->broken()) return std::optional<Chain>();
  return ring_->Pop();
}
void Queue::Push(const Chain& chain, std::uint32_t written) {
  if (!ring_->broken()) ring_->Push(chain, written);
}
void Queue::Unpop(Chain chain) {
  if (!ring_->broken()) ring_->Unpop(chain);
}
bool Queue::NeedsNotification() {
  return !ring_->broken() && ring_->NeedsNotification();
}
void Queue::DisableKicks() {
  if (!ring_->broken()) ring_->DisableKicks();
}
bool Queue::EnableKicks() {
  return !ring_->broken() && ring_->EnableKicks();
}
bool Queue::broken() const noexcept {
  return ring_->broken();
}
std::uint32_t Queue::position() const noexcept {
  return ring_->position();
}
void Queue::set_position(std::uint32_t position) noexcept {
  ring_->set_position(position);
}
unsigned Queue::in_flight() const noexcept {
  return ring_->in_flight();
}
void Queue::set_in_flight(unsigned entries) noexcept {
  ring_->set_in_flight(entries);
}

}  // namespace holdfast::devices::virtio
