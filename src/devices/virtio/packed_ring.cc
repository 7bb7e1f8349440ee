// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "devices/virtio/ring.h"
#include "devices/virtio/ring_barrier.h"

namespace holdfast::devices::virtio {
namespace {

// An event suppression structure (virtio 1.2, 2.8.14): position with wrap counter, then flags.
constexpr std::uint64_t kEventPosition = 0;
constexpr std::uint64_t kEventFlags = 2;
constexpr std::uint64_t kEventSize = 4;
constexpr std::uint16_t kEventsOn = 0;
constexpr std::uint16_t kEventsOff = 1;
constexpr std::uint16_t kEventAtPosition = 2;
constexpr std::uint16_t kWrapBit = 1 << 15;

// A place in the ring and the wrap counter there.
struct Position {
  std::uint16_t index = 0;
  bool wrap = true;

  void Advance(std::uint16_t by, std::uint16_t size) {
    const unsigned next = unsigned{index} + by;
    if (next >= size) wrap = !wrap;
    index = static_cast<std::uint16_t>(next >= size ? next - size : next);
  }
  void GoBack(std::uint16_t by, std::uint16_t size) {
    if (by > index) {
      wrap = !wrap;
      index = static_cast<std::uint16_t>(index + size - by);
    } else {
      index = static_cast<std::uint16_t>(index - by);
    }
  }
  std::uint16_t Encode() const { return static_cast<std::uint16_t>(index | (wrap ? kWrapBit : 0)); }
  static Position Decode(std::uint16_t value, std::uint16_t size) {
    const auto index = static_cast<std::uint16_t>(value & ~kWrapBit);
    return {static_cast<std::uint16_t>(index % size), (value & kWrapBit) != 0};
  }
};

/// The format of 2.8: one ring of descriptors that both sides write, told apart by wrap counters.
class PackedRing final : public Queue::Ring {
 public:
  PackedRing(const AddressSpace& memory, const QueueLayout& layout, RingArea descriptors,
             RingArea driver_event, RingArea device_event)
      : Ring(memory, layout),
        descriptors_(std::move(descriptors)),
        driver_event_(std::move(driver_event)),
        device_event_(std::move(device_event)) {}

  Result<std::optional<Chain>> Pop() override {
    if (!IsAvailable(next_)) return std::optional<Chain>();
    Chain chain;
    Position at = next_;
    for (unsigned count = 0;; ++count) {
      if (in_flight_ + count >= layout_.size) {
        return Break("more descriptors than the queue has entries");
      }
      const Descriptor descriptor = LoadDescriptor(at.index);
      at.Advance(1, layout_.size);
      chain.slots = static_cast<std::uint16_t>(count + 1);
      chain.id = descriptor.next_or_id;  // the last one's counts
      if ((descriptor.flags & kDescriptorIndirect) != 0) {
        if (count != 0 || (descriptor.flags & kDescriptorNext) != 0) {
          return Break("an indirect table is linked with other descriptors");
        }
        HF_TRY_STATUS(AddTable(chain, descriptor, /*linked=*/false));
        break;
      }
      HF_TRY_STATUS(AddBuffer(chain, descriptor, count));
      if ((descriptor.flags & kDescriptorNext) == 0) break;
    }
    next_ = at;
    in_flight_ += chain.slots;
    if (layout_.event_index && kicks_wanted_) StoreKickEvent();
    return std::optional<Chain>(std::move(chain));
  }

  void Push(const Chain& chain, std::uint32_t written) override {
    const std::uint64_t at = kDescriptorSize * used_.index;
    descriptors_.Store<std::uint32_t>(at + 8, written);
    descriptors_.Store<std::uint16_t>(at + 12, chain.id);
    const auto flags =
        static_cast<std::uint16_t>((used_.wrap ? kDescriptorAvailable | kDescriptorUsed : 0) |
                                   (written > 0 ? kDescriptorWrite : 0));
    descriptors_.Store<std::uint16_t>(at + 14, flags, std::memory_order_release);
    used_.Advance(chain.slots, layout_.size);
    pushed_ += chain.slots;
    in_flight_ -= std::min<unsigned>(in_flight_, chain.slots);
  }

  void Unpop(const Chain& chain) override {
    next_.GoBack(chain.slots, layout_.size);
    in_flight_ -= std::min<unsigned>(in_flight_, chain.slots);
  }

  bool NeedsNotification() override {
    const unsigned pushed = std::exchange(pushed_, 0);
    if (pushed == 0) return false;
    RingBarrier();
    const auto flags = driver_event_.Load<std::uint16_t>(kEventFlags);
    if (flags == kEventsOff) return false;
    if (flags != kEventAtPosition || !layout_.event_index) return true;
    // Whether the entry the driver waits for is among the last `pushed` ones.
    const Position event =
        Position::Decode(driver_event_.Load<std::uint16_t>(kEventPosition), layout_.size);
    unsigned distance = unsigned{used_.index} + layout_.size - event.index;
    if (event.wrap == used_.wrap) distance -= layout_.size;
    return distance - 1 < pushed;  // an event ahead makes distance - 1 huge or too large
  }

  void DisableKicks() override {
    kicks_wanted_ = false;
    device_event_.Store<std::uint16_t>(kEventFlags, kEventsOff);
  }

  bool EnableKicks() override {
    kicks_wanted_ = true;
    if (layout_.event_index) {
      StoreKickEvent();
      device_event_.Store<std::uint16_t>(kEventFlags, kEventAtPosition, std::memory_order_release);
    } else {
      device_event_.Store<std::uint16_t>(kEventFlags, kEventsOn);
    }
    RingBarrier();
    return IsAvailable(next_);
  }

  std::uint32_t position() const noexcept override {
    return next_.Encode() | std::uint32_t{used_.Encode()} << 16;
  }
  void set_position(std::uint32_t position) noexcept override {
    next_ = Position::Decode(static_cast<std::uint16_t>(position), layout_.size);
    used_ = Position::Decode(static_cast<std::uint16_t>(position >> 16), layout_.size);
    pushed_ = 0;
    in_flight_ = 0;
  }

 private:
  bool IsAvailable(Position at) const {
    const auto flags = descriptors_.Load<std::uint16_t>(kDescriptorSize * at.index + 14,
                                                        std::memory_order_acquire);
    return ((flags & kDescriptorAvailable) != 0) == at.wrap &&
           ((flags & kDescriptorUsed) != 0) != at.wrap;
  }

  Descriptor LoadDescriptor(std::uint16_t index) const {
    const std::uint64_t at = kDescriptorSize * index;
    const auto rest = descriptors_.Load<std::uint64_t>(at + 8);
    return {.address = descriptors_.Load<std::uint64_t>(at),
            .length = static_cast<std::uint32_t>(rest),
            .flags = static_cast<std::uint16_t>(rest >> 48),
            .next_or_id = static_cast<std::uint16_t>(rest >> 32)};
  }

  void StoreKickEvent() { device_event_.Store<std::uint16_t>(kEventPosition, next_.Encode()); }

  RingArea descriptors_;
  RingArea driver_event_;
  RingArea device_event_;
  Position next_;        // where the driver's next request will be
  Position used_;        // where the next answer goes
  unsigned pushed_ = 0;  // ring entries given back since the driver was last thought of
  bool kicks_wanted_ = true;
};

}  // namespace

Result<std::unique_ptr<Queue::Ring>> MakePackedRing(const AddressSpace& memory,
                                                    const QueueLayout& layout) {
  HF_TRY(RingArea descriptors, RingArea::Pin(memory, "descriptor ring", layout.descriptors,
                                             kDescriptorSize * layout.size, 16));
  HF_TRY(RingArea driver,
         RingArea::Pin(memory, "driver event suppression area", layout.driver_area, kEventSize, 4));
  HF_TRY(RingArea device,
         RingArea::Pin(memory, "device event suppression area", layout.device_area, kEventSize, 4));
  return std::make_unique<PackedRing>(memory, layout, std::move(descriptors), std::move(driver),
                                      std::move(device));
}

}  // namespace holdfast::devices::virtio
