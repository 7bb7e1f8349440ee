// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <holdfast/address_space.h>
#include <holdfast/error.h>

#include "devices/virtio/queue.h"

// The inside of Queue: what split and packed rings share.
namespace holdfast::devices::virtio {

/// Descriptor flags (virtio 1.2, 2.7.5 and 2.8.1).
inline constexpr std::uint16_t kDescriptorNext = 1;
inline constexpr std::uint16_t kDescriptorWrite = 2;
inline constexpr std::uint16_t kDescriptorIndirect = 4;
inline constexpr std::uint16_t kDescriptorAvailable = 1 << 7;
inline constexpr std::uint16_t kDescriptorUsed = 1 << 15;

/// A descriptor, copied out of the guest's memory. In a packed ring `last` is the buffer id and
/// precedes the flags; Load… put both in their place.
struct Descriptor {
  std::uint64_t address = 0;
  std::uint32_t length = 0;
  std::uint16_t flags = 0;
  std::uint16_t next_or_id = 0;
};
inline constexpr std::uint64_t kDescriptorSize = 16;

/// A contiguous, pinned part of a ring. Each access is one load or store of the guest's memory,
/// which the guest may change at any time.
class RingArea {
 public:
  /// @return kMalformed if it is not all RAM, or in two pieces of host memory, or not aligned
  static Result<RingArea> Pin(const AddressSpace& memory, std::string_view what,
                              GuestAddress address, std::uint64_t size, std::uint64_t alignment);

  template <typename T>
  T Load(std::uint64_t offset, std::memory_order order = std::memory_order_relaxed) const {
    return std::atomic_ref<T>(*reinterpret_cast<T*>(base_ + offset)).load(order);
  }
  template <typename T>
  void Store(std::uint64_t offset, T value,
             std::memory_order order = std::memory_order_relaxed) const {
    std::atomic_ref<T>(*reinterpret_cast<T*>(base_ + offset)).store(value, order);
  }

 private:
  GuestIoVec pin_;
  std::byte* base_ = nullptr;
};

/// One ring of either format. Functions as in Queue.
class Queue::Ring {
 public:
  Ring(const AddressSpace& memory, const QueueLayout& layout) : memory_(memory), layout_(layout) {}
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;
  virtual ~Ring() = default;

  virtual Result<std::optional<Chain>> Pop() = 0;
  virtual void Push(const Chain& chain, std::uint32_t written) = 0;
  virtual void Unpop(const Chain& chain) = 0;
  virtual bool NeedsNotification() = 0;
  virtual void DisableKicks() = 0;
  virtual bool EnableKicks() = 0;
  virtual std::uint32_t position() const noexcept = 0;
  virtual void set_position(std::uint32_t position) noexcept = 0;

  const QueueLayout& layout() const noexcept { return layout_; }
  bool broken() const noexcept { return broken_; }
  unsigned in_flight() const noexcept { return in_flight_; }
  void set_in_flight(unsigned entries) noexcept { in_flight_ = entries; }

 protected:
  /// Marks the ring broken. @return why, as an error
  tl::unexpected<Error> Break(std::string why);

  /// Adds the buffer of a descriptor that is no table to `chain`, whose `count`th it is.
  Status AddBuffer(Chain& chain, const Descriptor& descriptor, unsigned count);
  /// Adds what an indirect table holds. @param linked  the entries are linked by `next` (split);
  /// otherwise all are used, in order (packed)
  Status AddTable(Chain& chain, const Descriptor& table, bool linked);

  const AddressSpace& memory_;
  const QueueLayout layout_;
  bool broken_ = false;
  unsigned in_flight_ = 0;  // ring entries popped and not pushed
};

Result<std::unique_ptr<Queue::Ring>> MakeSplitRing(const AddressSpace& memory,
                                                   const QueueLayout& layout);
Result<std::unique_ptr<Queue::Ring>> MakePackedRing(const AddressSpace& memory,
                                                    const QueueLayout& layout);

}  // namespace holdfast::devices::virtio
