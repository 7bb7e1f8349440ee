// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include <holdfast/error.h>

#include "devices/block/uring.h"
#include "migration/progress.h"
#include "migration/snapshot_reader.h"

namespace holdfast::migration {

/// Reads chunks of a snapshot's memory through an io_uring, several reads under way while the
/// checksums of others are compared. What the kernel leaves undone is read by plain system calls.
///
/// Thread-safety: one thread.
class RingReader {
 public:
  /// A chunk, and the memory it is read into.
  struct Target {
    std::size_t block = 0;  ///< of the chain
    std::uint64_t offset = 0;
    std::span<std::byte> to = {};
    bool zeroed = false;  ///< `to` reads as zeroes already
  };
  /// @param chain  outlives it
  /// @return as devices::MakeUring()
  static Result<std::unique_ptr<RingReader>> Create(const SnapshotChain& chain);
  RingReader(const RingReader&) = delete;
  RingReader& operator=(const RingReader&) = delete;

  /// Reads all that `next` gives out. What was read is added to `progress`.
  /// @return as SnapshotChain::ReadChunk. Nothing is under way any more, also then.
  Status ReadAll(const std::function<std::optional<Target>()>& next, Progress& progress);

 private:
  // A read, from where it is prepared to where its pages are in place.
  struct Slot {
    SnapshotChain::PageRead read{};
    Target target{};
    std::span<std::byte> stored{};    // what the file's bytes are read to
    std::vector<std::byte> buffer{};  // of what cannot be read into place
  };
  RingReader(const SnapshotChain& chain, devices::UniqueUring ring);
  void Prepare(Slot& slot);
  void Submit();
  void Reap();
  void Complete(Slot& slot, std::int64_t result);

  const SnapshotChain& chain_;
  const devices::UniqueUring ring_;
  std::vector<Slot> slots_;
  std::vector<Slot*> free_;
  std::deque<Slot*> prepared_;  // in the ring's order; the kernel has not taken them
  std::size_t in_flight_ = 0;   // the kernel has them
  bool refused_ = false;        // the kernel takes no more
  Progress* progress_ = nullptr;
  Status status_;  // the first that went wrong
};

}  // namespace holdfast::migration
