// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include <holdfast/address_space.h>
#include <holdfast/error.h>

#include "base/state.h"
#include "devices/virtio/queue.h"

namespace holdfast::devices::virtio {

/// A request that a device had taken and not answered, in guest physical addresses. What its
/// descriptors said may have been overwritten since (a packed ring's are), so it is saved whole.
struct SavedChain {
  struct Range {
    std::uint64_t address = 0;
    std::uint64_t length = 0;  ///< bytes
  };
  std::uint16_t id = 0;
  std::uint16_t slots = 1;
  std::vector<Range> readable;
  std::vector<Range> writable;

  /// @return an error if its memory is no longer where it was
  static Result<SavedChain> From(const AddressSpace& memory, const Chain& chain);
  /// Pins it again. @return kMalformed if it is not in the guest's RAM
  Result<Chain> Pin(const AddressSpace& memory) const;
};

/// A virtqueue between two runs of the machine: how far driver and device have come in the rings,
/// and the requests that Pop() gives once more.
struct QueueState {
  std::uint32_t position = 0;  ///< Queue::position()
  std::vector<SavedChain> again;

  /// Saves or loads it; what no queue of at most `size` entries can hold is refused.
  void Visit(state::Fields& fields, std::uint16_t size);
  /// Ring entries that `again` takes up: requests for split rings, descriptors for packed ones.
  unsigned EntriesUsed() const noexcept;
};

}  // namespace holdfast::devices::virtio
