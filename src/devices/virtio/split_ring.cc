// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "devices/virtio/ring.h"
#include "devices/virtio/ring_barrier.h"

namespace holdfast::devices::virtio {
namespace {

// Offsets in the available ring (virtio 1.2, 2.7.6) and the used ring (2.7.8).
constexpr std::uint64_t kFlags = 0;
constexpr std::uint64_t kIndex = 2;
constexpr std::uint64_t kEntries = 4;
constexpr std::uint64_t kAvailableEntry = 2;
constexpr std::uint64_t kUsedEntry = 8;

constexpr std::uint16_t kNoInterrupt = 1;  // in the available ring's flags
constexpr std::uint16_t kNoKick = 1;       // in the used ring's

/// The format of 2.7: a table of descriptors, a ring of heads from the driver, one from the device.
class SplitRing final : public Queue::Ring {
 public:
  SplitRing(const AddressSpace& memory, const QueueLayout& layout, RingArea descriptors,
            RingArea available, RingArea used)
      : Ring(memory, layout),
        descriptors_(std::move(descriptors)),
        available_(std::move(available)),
        used_(std::move(used)) {}

  Result<std::optional<Chain>> Pop() override {
    const auto index = available_.Load<std::uint16_t>(kIndex, std::memory_order_acquire);
    const auto waiting = static_cast<std::uint16_t>(index - next_available_);
    if (waiting == 0) return std::optional<Chain>();
    if (waiting > layout_.size) {
      return Break(fmt::format("the available index jumps from {} to {}", next_available_, index));
    }
    if (in_flight_ >= layout_.size) return Break("more requests than the queue has entries");
    const auto head = available_.Load<std::uint16_t>(
        kEntries + std::uint64_t{kAvailableEntry} * (next_available_ % layout_.size));
    HF_TRY(Chain chain, Walk(head));
    ++next_available_;
    ++in_flight_;
    if (layout_.event_index && kicks_wanted_) StoreKickEvent();
    return std::optional<Chain>(std::move(chain));
  }

  void Push(const Chain& chain, std::uint32_t written) override {
    const std::uint64_t entry = kEntries + kUsedEntry * (next_used_ % layout_.size);
    used_.Store<std::uint32_t>(entry, chain.id);
    used_.Store<std::uint32_t>(entry + 4, written);
    ++next_used_;
    used_.Store<std::uint16_t>(kIndex, next_used_, std::memory_order_release);
    if (in_flight_ > 0) --in_flight_;
  }

  void Unpop(const Chain&) override {
    --next_available_;
    if (in_flight_ > 0) --in_flight_;
  }

  bool NeedsNotification() override {
    if (next_used_ == notified_used_) return false;
    const std::uint16_t before = notified_used_;
    notified_used_ = next_used_;
    // The driver stores what it wants and then looks at the index; here it is the other way round.
    RingBarrier();
    if (!layout_.event_index) {
      return (available_.Load<std::uint16_t>(kFlags) & kNoInterrupt) == 0;
    }
    // 2.7.7.2: whether the index went past the one that the driver waits for.
    const auto event =
        available_.Load<std::uint16_t>(kEntries + std::uint64_t{kAvailableEntry} * layout_.size);
    return static_cast<std::uint16_t>(next_used_ - event - 1) <
           static_cast<std::uint16_t>(next_used_ - before);
  }

  void DisableKicks() override {
    kicks_wanted_ = false;
    // With event indices the old one is simply left behind.
    if (!layout_.event_index) used_.Store<std::uint16_t>(kFlags, kNoKick);
  }

  bool EnableKicks() override {
    kicks_wanted_ = true;
    if (layout_.event_index) {
      StoreKickEvent();
    } else {
      used_.Store<std::uint16_t>(kFlags, 0);
    }
    RingBarrier();
    return available_.Load<std::uint16_t>(kIndex) != next_available_;
  }

  std::uint32_t position() const noexcept override { return next_available_; }
  void set_position(std::uint32_t position) noexcept override {
    next_available_ = static_cast<std::uint16_t>(position);
    next_used_ = used_.Load<std::uint16_t>(kIndex);
    notified_used_ = next_used_;
    in_flight_ = 0;
  }

 private:
  Descriptor LoadDescriptor(std::uint16_t index) const {
    const std::uint64_t at = kDescriptorSize * index;
    const auto rest = descriptors_.Load<std::uint64_t>(at + 8);
    return {.address = descriptors_.Load<std::uint64_t>(at),
            .length = static_cast<std::uint32_t>(rest),
            .flags = static_cast<std::uint16_t>(rest >> 32),
            .next_or_id = static_cast<std::uint16_t>(rest >> 48)};
  }

  Result<Chain> Walk(std::uint16_t head) {
    Chain chain;
    chain.id = head;
    chain.slots = 1;
    std::uint16_t index = head;
    for (unsigned count = 0;; ++count) {
      if (index >= layout_.size) {
        return Break(fmt::format("descriptor {} of a queue with {}", index, layout_.size));
      }
      if (count >= layout_.size) return Break("descriptors are linked in a circle");
      const Descriptor descriptor = LoadDescriptor(index);
      if ((descriptor.flags & kDescriptorIndirect) != 0) {
        // 2.7.5.3.1: a table stands alone.
        if (count != 0 || (descriptor.flags & kDescriptorNext) != 0) {
          return Break("an indirect table is linked with other descriptors");
        }
        HF_TRY_STATUS(AddTable(chain, descriptor, /*linked=*/true));
        return chain;
      }
      HF_TRY_STATUS(AddBuffer(chain, descriptor, count));
      if ((descriptor.flags & kDescriptorNext) == 0) return chain;
      index = descriptor.next_or_id;
    }
  }

  void StoreKickEvent() {
    used_.Store<std::uint16_t>(kEntries + kUsedEntry * layout_.size, next_available_);
  }

  RingArea descriptors_;
  RingArea available_;
  RingArea used_;
  std::uint16_t next_available_ = 0;
  std::uint16_t next_used_ = 0;
  std::uint16_t notified_used_ = 0;  // next_used_ when the driver was last thought of
  bool kicks_wanted_ = true;
};

}  // namespace

Result<std::unique_ptr<Queue::Ring>> MakeSplitRing(const AddressSpace& memory,
                                                   const QueueLayout& layout) {
  const std::uint64_t size = layout.size;
  HF_TRY(RingArea descriptors,
         RingArea::Pin(memory, "descriptor table", layout.descriptors, kDescriptorSize * size, 16));
  HF_TRY(RingArea available, RingArea::Pin(memory, "available ring", layout.driver_area,
                                           kEntries + kAvailableEntry * size + 2, 2));
  HF_TRY(RingArea used, RingArea::Pin(memory, "used ring", layout.device_area,
                                      kEntries + kUsedEntry * size + 2, 4));
  return std::make_unique<SplitRing>(memory, layout, std::move(descriptors), std::move(available),
                                     std::move(used));
}

}  // namespace holdfast::devices::virtio
