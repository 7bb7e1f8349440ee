// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/page_bitmap.h>

#include "migration/progress.h"
#include "migration/snapshot_reader.h"
#include "migration/snapshot_writer.h"

namespace holdfast::migration {

/// Brings guest RAM into a snapshot file, in passes.
///
/// Thread-safety: one thread; it uses several for each pass.
class MemoryPasses {
 public:
  /// @param parent  what the pages are compared with, of a differential snapshot; else null
  /// Everything referred to outlives the object.
  MemoryPasses(const AddressSpace& memory, SnapshotWriter& writer, const SnapshotChain* parent,
               Progress& progress);

  /// Writes all that RAM holds; of a differential snapshot what is not in the parent.
  /// @param standing  whether RAM does not change meanwhile: then it is written from where it is
  Status WriteAll(bool standing);
  /// Writes the chunks with pages of `dirty` anew, while the guest runs.
  Status WriteAgain(const DirtyPages& dirty);
  /// Writes just the pages of `dirty`, which do not change any more, on top of the rest.
  Status WriteLast(const DirtyPages& dirty);

  /// Bytes of RAM that the last pass brought into the file in a second, of those it looked at.
  double speed() const noexcept { return speed_; }

 private:
  struct Chunk {
    std::size_t block;
    std::uint64_t offset;
  };
  struct Pass {
    SnapshotWriter::Layer layer = SnapshotWriter::Layer::kMemory;
    bool copy = true;  ///< RAM may change
    const DirtyPages* which = nullptr;
    DirtyPages present;  ///< pages that may hold anything
  };
  Status Run(const Pass& pass, const std::vector<Chunk>& chunks);
  Status WriteOne(const Pass& pass, const Chunk& chunk) const;
  std::vector<Chunk> ChunksOf(const DirtyPages& pages) const;
  Status FindPresent(const std::vector<Chunk>& chunks, DirtyPages& present) const;

  const AddressSpace& memory_;
  SnapshotWriter& writer_;
  const SnapshotChain* const parent_;
  Progress& progress_;
  double speed_ = 0;
};

}  // namespace holdfast::migration
