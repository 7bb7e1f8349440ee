// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/test_driver.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "devices/virtio/ring.h"
#include "devices/virtio/ring_barrier.h"

namespace holdfast::devices::virtio {

TestMemory::TestMemory(std::uint64_t size) {
  auto block = RamBlock::CreateMemfd("test", size);
  if (!block) std::abort();  // a test without memory cannot say anything
  block_ = *std::move(block);
  space_ = std::make_unique<AddressSpace>(nullptr);
  if (!space_->AddRam(GuestAddress(0), size, *block_, 0)) std::abort();
}

GuestAddress TestMemory::Allocate(std::uint64_t size, std::uint64_t alignment) {
  next_ = (next_ + alignment - 1) / alignment * alignment;
  const GuestAddress address(next_);
  next_ += size;
  if (next_ > bytes().size()) std::abort();
  return address;
}

GuestAddress TestMemory::Put(std::span<const std::byte> data) {
  const GuestAddress to = Allocate(data.size());
  std::ranges::copy(data, bytes().begin() + static_cast<std::ptrdiff_t>(to.value()));
  return to;
}

std::vector<std::byte> TestMemory::Get(GuestAddress from, std::uint64_t size) const {
  const auto part = bytes().subspan(from.value(), size);
  return {part.begin(), part.end()};
}

TestQueue::TestQueue(TestMemory& memory, std::uint16_t size, bool packed, bool event_index,
                     bool indirect)
    : memory_(memory), slots_(65536) {
  layout_.size = size;
  layout_.packed = packed;
  layout_.event_index = event_index;
  layout_.indirect = indirect;
  layout_.descriptors = memory.Allocate(kDescriptorSize * size);
  layout_.driver_area = memory.Allocate(packed ? 4 : 6 + 2 * std::uint64_t{size});
  layout_.device_area = memory.Allocate(packed ? 4 : 6 + 8 * std::uint64_t{size});
}

void TestQueue::WriteDescriptor(GuestAddress table, unsigned index, const TestBuffer& buffer,
                                std::uint16_t flags, std::uint16_t next_or_id) {
  const GuestAddress at = table + std::uint64_t{index} * kDescriptorSize;
  memory_.Store<std::uint64_t>(at, buffer.address.value());
  memory_.Store<std::uint32_t>(at + 8, buffer.length);
  const bool packed = layout_.packed;
  memory_.Store<std::uint16_t>(at + (packed ? 12 : 14), next_or_id);
  std::atomic_ref<std::uint16_t>(
      *reinterpret_cast<std::uint16_t*>(memory_.bytes().data() + at.value() + (packed ? 14 : 12)))
      .store(flags, std::memory_order_release);
}

std::uint16_t TestQueue::Add(std::span<const TestBuffer> buffers, bool as_table) {
  const auto flags_of = [&](std::size_t i) {
    return static_cast<std::uint16_t>((buffers[i].device_writes ? kDescriptorWrite : 0) |
                                      (i + 1 < buffers.size() ? kDescriptorNext : 0));
  };
  std::vector<TestBuffer> in_ring(buffers.begin(), buffers.end());
  if (as_table) {
    const GuestAddress table = memory_.Allocate(kDescriptorSize * buffers.size());
    for (std::size_t i = 0; i < buffers.size(); ++i) {
      const auto link = static_cast<std::uint16_t>(layout_.packed ? 0 : i + 1);
      WriteDescriptor(table, static_cast<unsigned>(i), buffers[i], flags_of(i), link);
    }
    in_ring = {{table, static_cast<std::uint32_t>(kDescriptorSize * buffers.size()), false}};
  }
  const auto extra = static_cast<std::uint16_t>(as_table ? kDescriptorIndirect : 0);
  const auto ring_flags = [&](std::size_t i) {
    return static_cast<std::uint16_t>(as_table ? extra : flags_of(i));
  };
  const auto count = static_cast<std::uint16_t>(in_ring.size());
  if (!layout_.packed) {
    const std::uint16_t head = free_;
    for (std::uint16_t i = 0; i < count; ++i) {
      const auto index = static_cast<std::uint16_t>((head + i) % layout_.size);
      WriteDescriptor(layout_.descriptors, index, in_ring[i], ring_flags(i),
                      static_cast<std::uint16_t>((index + 1) % layout_.size));
    }
    free_ = static_cast<std::uint16_t>((free_ + count) % layout_.size);
    memory_.Store<std::uint16_t>(
        layout_.driver_area + 4 + std::uint64_t{2} * (next_ % layout_.size), head);
    ++next_;
    std::atomic_ref<std::uint16_t>(
        *reinterpret_cast<std::uint16_t*>(memory_.bytes().data() + layout_.driver_area.value() + 2))
        .store(next_, std::memory_order_release);
    return head;
  }
  // The first descriptor becomes available last: then all are.
  const std::uint16_t id = next_;
  slots_[id] = count;
  std::uint16_t first_flags = 0;
  const std::uint16_t first = next_;
  for (std::uint16_t i = 0; i < count; ++i) {
    const auto flags = static_cast<std::uint16_t>(ring_flags(i) |
                                                  (wrap_ ? kDescriptorAvailable : kDescriptorUsed));
    if (i == 0) first_flags = flags;
    // Until then the first one keeps the flags of a descriptor that is not available.
    const auto now = static_cast<std::uint16_t>(i == 0 ? (wrap_ ? 0 : 0x8080) : flags);
    WriteDescriptor(layout_.descriptors, next_, in_ring[i], now, id);
    if (++next_ == layout_.size) {
      next_ = 0;
      wrap_ = !wrap_;
    }
  }
  WriteDescriptor(layout_.descriptors, first, in_ring[0], first_flags, id);
  return id;
}

std::optional<TestQueue::Used> TestQueue::Take() {
  if (!layout_.packed) {
    const auto index = std::atomic_ref<std::uint16_t>(
                           *reinterpret_cast<std::uint16_t*>(memory_.bytes().data() +
                                                             layout_.device_area.value() + 2))
                           .load(std::memory_order_acquire);
    if (index == seen_) return std::nullopt;
    const GuestAddress entry = layout_.device_area + 4 + std::uint64_t{8} * (seen_ % layout_.size);
    ++seen_;
    return Used{static_cast<std::uint16_t>(memory_.Load<std::uint32_t>(entry)),
                memory_.Load<std::uint32_t>(entry + 4)};
  }
  const GuestAddress at = layout_.descriptors + std::uint64_t{seen_} * kDescriptorSize;
  const auto flags = std::atomic_ref<std::uint16_t>(*reinterpret_cast<std::uint16_t*>(
                                                        memory_.bytes().data() + at.value() + 14))
                         .load(std::memory_order_acquire);
  if (((flags & kDescriptorAvailable) != 0) != seen_wrap_ ||
      ((flags & kDescriptorUsed) != 0) != seen_wrap_) {
    return std::nullopt;
  }
  const Used used{memory_.Load<std::uint16_t>(at + 12), memory_.Load<std::uint32_t>(at + 8)};
  seen_ = static_cast<std::uint16_t>(seen_ + slots_[used.id]);
  if (seen_ >= layout_.size) {
    seen_ = static_cast<std::uint16_t>(seen_ - layout_.size);
    seen_wrap_ = !seen_wrap_;
  }
  return used;
}

bool TestQueue::NeedsKick() {
  const std::uint16_t before = kicked_;
  kicked_ = next_;
  RingBarrier();
  if (layout_.packed) {
    return memory_.Load<std::uint16_t>(layout_.device_area + 2) != 1;
  }
  if (!layout_.event_index) return memory_.Load<std::uint16_t>(layout_.device_area) == 0;
  const auto event =
      memory_.Load<std::uint16_t>(layout_.device_area + 4 + std::uint64_t{8} * layout_.size);
  return static_cast<std::uint16_t>(next_ - event - 1) < static_cast<std::uint16_t>(next_ - before);
}

void TestQueue::WantInterrupts(bool wanted) {
  if (layout_.packed) {
    const auto position = static_cast<std::uint16_t>(seen_ | (seen_wrap_ ? 0x8000 : 0));
    memory_.Store<std::uint16_t>(layout_.driver_area, position);
    const int on = layout_.event_index ? 2 : 0;
    memory_.Store<std::uint16_t>(layout_.driver_area + 2,
                                 static_cast<std::uint16_t>(wanted ? on : 1));
  } else if (layout_.event_index) {
    const auto event = static_cast<std::uint16_t>(wanted ? seen_ : seen_ - 1);
    memory_.Store<std::uint16_t>(layout_.driver_area + 4 + std::uint64_t{2} * layout_.size, event);
  } else {
    memory_.Store<std::uint16_t>(layout_.driver_area, static_cast<std::uint16_t>(wanted ? 0 : 1));
  }
}

TestDriver::TestDriver(Device& device, EventLoop& loop, std::uint64_t features)
    : device_(&device),
      loop_(loop),
      features_(features & ~device.refused_common_features() &
                (device.features() | kFeatureIndirect | kFeatureEventIndex | kFeatureVersion1 |
                 kFeatureRingPacked)) {}

TestDriver::~TestDriver() {
  Stop();
}

Result<std::unique_ptr<TransportQueue>> TestDriver::MakeQueue(unsigned index) {
  return TransportQueue::Create(loop_, {.kicked = [this, index] { device_->HandleQueue(index); },
                                        .interrupt = [this, index] { ++interrupts_[index]; },
                                        .broken = [this](const Error& why) { NeedsReset(why); }});
}

Status TestDriver::Start(std::uint16_t size) {
  const auto sizes = device_->queue_sizes();
  interrupts_.assign(sizes.size(), 0);
  needs_reset_.clear();
  for (unsigned i = 0; i < sizes.size(); ++i) {
    sides_.push_back(std::make_unique<TestQueue>(memory_, std::min(size, sizes[i]),
                                                 has(kFeatureRingPacked), has(kFeatureEventIndex),
                                                 has(kFeatureIndirect)));
    HF_TRY(auto queue, MakeQueue(i));
    HF_TRY_STATUS(queue->Start(memory_.space(), sides_.back()->layout()));
    queues_.push_back(std::move(queue));
  }
  started_ = true;
  HF_TRY_STATUS(device_->Activate(*this));
  for (unsigned i = 0; i < sizes.size(); ++i) device_->HandleQueue(i);
  return {};
}

void TestDriver::SetRunning(bool running) {
  for (const auto& queue : queues_) queue->Hold(!running);
  device_->SetRunning(running);
  for (unsigned i = 0; running && i < queues_.size(); ++i) device_->HandleQueue(i);
}

Result<std::vector<std::byte>> TestDriver::SaveDevice() {
  SetRunning(false);
  state::Fields fields(device_->state_version());
  device_->VisitState(fields);
  HF_TRY_STATUS(fields.status());
  return std::move(fields).Take();
}

Status TestDriver::MoveTo(Device& device, const std::function<void()>& more) {
  HF_TRY(const std::vector<std::byte> saved, SaveDevice());
  std::vector<QueueState> rings;
  for (const auto& queue : queues_) {
    HF_TRY(QueueState ring, queue->Save(memory()));
    state::Fields out(1);
    ring.Visit(out, queue->layout().size);
    const std::vector<std::byte> bytes = std::move(out).Take();
    state::Fields in(1, bytes);
    rings.emplace_back().Visit(in, queue->layout().size);
    HF_TRY_STATUS(in.status());
  }
  device_->Reset();
  queues_.clear();
  device_ = &device;
  device_->SetRunning(false);
  state::Fields fields(device_->state_version(), saved);
  device_->VisitState(fields);
  HF_TRY_STATUS(fields.status());
  if (more) more();
  for (unsigned i = 0; i < rings.size(); ++i) {
    HF_TRY(auto queue, MakeQueue(i));
    HF_TRY_STATUS(queue->Start(memory(), sides_[i]->layout(), &rings[i]));
    queues_.push_back(std::move(queue));
  }
  device_->SetRunning(true);
  restored_ = true;
  const Status activated = device_->Activate(*this);
  restored_ = false;
  HF_TRY_STATUS(activated);
  for (unsigned i = 0; i < queues_.size(); ++i) device_->HandleQueue(i);
  return {};
}

void TestDriver::Stop() {
  if (started_) device_->Reset();
  started_ = false;
  queues_.clear();
  sides_.clear();
}

bool TestDriver::RunUntil(const std::function<bool()>& done) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
    if (!loop_.RunOnce(std::chrono::milliseconds(10))) return false;
  }
  return true;
}

std::uint16_t TestDriver::Send(unsigned queue, std::span<const TestBuffer> buffers) {
  const std::uint16_t id = sides_[queue]->Add(buffers);
  Kick(queue);
  return id;
}

Result<TestDriver::Answer> TestDriver::Ask(unsigned queue, std::span<const std::byte> readable,
                                           std::uint32_t writable) {
  std::vector<TestBuffer> buffers;
  if (!readable.empty()) {
    buffers.push_back({memory_.Put(readable), static_cast<std::uint32_t>(readable.size()), false});
  }
  const GuestAddress answer = memory_.Allocate(writable);
  if (writable != 0) buffers.push_back({answer, writable, true});
  const std::uint16_t id = Send(queue, buffers);
  std::optional<TestQueue::Used> used;
  if (!RunUntil([&] { return used || (used = Take(queue)) || !needs_reset_.empty(); }) || !used) {
    return Fail(Errc::kSystem, needs_reset_.empty() ? "no answer" : needs_reset_);
  }
  if (used->id != id) return Fail(Errc::kMalformed, "the answer is to another request");
  return Answer{used->written, memory_.Get(answer, writable)};
}

std::vector<std::byte> BytesOf(std::string_view text) {
  const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
  return {bytes.begin(), bytes.end()};
}

}  // namespace holdfast::devices::virtio
