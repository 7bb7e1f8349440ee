// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include <holdfast/address_space.h>
#include <holdfast/error.h>
#include <holdfast/guest_address.h>
#include <holdfast/guest_io_vec.h>

namespace holdfast::devices::virtio {

/// The largest queue (virtio 1.2, 2.7 and 2.8).
inline constexpr std::uint16_t kMaxQueueSize = 32768;

/// Where a driver has put a queue, and what it agreed to.
struct QueueLayout {
  std::uint16_t size = 0;  ///< entries; a power of two for split queues
  GuestAddress descriptors;
  GuestAddress driver_area;  ///< available ring, or driver event suppression
  GuestAddress device_area;  ///< used ring, or device event suppression
  bool packed = false;       ///< VIRTIO_F_RING_PACKED
  bool event_index = false;  ///< VIRTIO_F_EVENT_IDX
  bool indirect = false;     ///< VIRTIO_F_INDIRECT_DESC
  bool in_order = false;     ///< VIRTIO_F_IN_ORDER
};

/// One request of the driver: buffers for the device to read, then buffers for it to write.
struct Chain {
  GuestIoVec readable;
  GuestIoVec writable;
  std::uint16_t id = 0;     ///< names it to Push()
  std::uint16_t slots = 0;  ///< ring entries it takes up (packed)
};

/// The device's side of a virtqueue, split or packed. Every value in the rings is the guest's: all
/// of it is read once, checked, and used from the copy. A ring that breaks the rules is broken from
/// then on: Pop() gives nothing more and Push() writes nothing.
///
/// Thread-safety: one thread at a time.
class Queue {
 public:
  class Ring;  // one of the two formats (ring.h)

  /// Pins the rings. `memory` outlives the queue.
  /// @return kMalformed, in a sentence, if the layout is impossible or its rings are not RAM
  static Result<Queue> Create(const AddressSpace& memory, const QueueLayout& layout);
  Queue(Queue&&) noexcept;
  Queue& operator=(Queue&&) noexcept;
  ~Queue();

  const QueueLayout& layout() const noexcept;
  /// The driver's next request, or nothing. @return kMalformed once when the ring breaks
  Result<std::optional<Chain>> Pop();
  /// Gives `chain` back, `written` bytes of its writable part being filled in. Several may be given
  /// back before one NeedsNotification().
  void Push(const Chain& chain, std::uint32_t written);
  /// Takes the last popped chain back, as if Pop() had not happened (a receive queue without enough
  /// room).
  void Unpop(Chain chain);
  /// Whether the driver wants an interrupt for what was pushed since the last call.
  bool NeedsNotification();
  /// Asks the driver not to kick, or to kick again. After EnableKicks() look once more: true means
  /// there is a request already.
  void DisableKicks();
  bool EnableKicks();
  bool broken() const noexcept;

  /// The ring positions as vhost takes them (VHOST_SET_VRING_BASE): the next available index, and
  /// for packed queues wrap counters in bit 15 and the used index in the upper half.
  std::uint32_t position() const noexcept;
  void set_position(std::uint32_t position) noexcept;
  /// Ring entries popped and not pushed: requests in split rings, descriptors in packed ones. After
  /// set_position() there are none, until it is said that there are.
  unsigned in_flight() const noexcept;
  void set_in_flight(unsigned entries) noexcept;

 private:
  explicit Queue(std::unique_ptr<Ring> ring);
  std::unique_ptr<Ring> ring_;
};

}  // namespace holdfast::devices::virtio
