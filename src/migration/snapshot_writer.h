// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "base/state.h"
#include "base/thread_annotations.h"
#include "migration/snapshot_format.h"

namespace holdfast::migration {

/// Writes a snapshot file. Until Finish() it has a temporary name beside the final one, so that a
/// crash at any moment leaves what was there before; without Finish() it goes away.
///
/// Thread-safety: WriteChunk() on several threads at once, for different chunks; the rest on one
/// thread while no other writes.
class SnapshotWriter {
 public:
  struct Block {
    std::string id;
    std::uint64_t size = 0;  ///< bytes, a page multiple
  };
  struct Options {
    std::string path;
    bool zstd = false;
    /// Of a differential snapshot: what it differs from, and how the file names it.
    std::optional<SnapshotId> parent = std::nullopt;
    std::string parent_file = {};
  };
  /// Which extents of a chunk are meant: the memory, or what replaces pages of it.
  enum class Layer : std::uint8_t { kMemory, kRewritten };

  /// @return the failed system call, naming the file or its folder
  static Result<std::unique_ptr<SnapshotWriter>> Create(Options options, std::vector<Block> blocks);
  SnapshotWriter(const SnapshotWriter&) = delete;
  SnapshotWriter& operator=(const SnapshotWriter&) = delete;
  ~SnapshotWriter();

  /// Writes the pages of `pages` whose bit is set in `which` (bit 0 the first one), in place of
  /// what was written for that chunk and layer before. Zero pages take no space.
  /// @param offset  in the block, a multiple of kSnapshotChunk
  /// @param pages  the chunk's bytes, which do not change meanwhile; a block's last one may be
  /// short
  /// @return the failed write: a full disk is kExhausted
  Status WriteChunk(std::size_t block, std::uint64_t offset, std::span<const std::byte> pages,
                    std::uint32_t which, Layer layer = Layer::kMemory) HF_EXCLUDES(mutex_);
  /// Writes the rest, makes all of it last (fsync) and gives the file its name.
  /// `directory`'s sections and blocks are filled in here.
  Status Finish(SnapshotDirectory directory, std::span<const state::SavedSection> sections)
      HF_EXCLUDES(mutex_);

  const SnapshotId& id() const noexcept { return header_.id; }

 private:
  // The extents of one chunk; most have one.
  using Extents = std::vector<Extent>;
  struct BlockIndex {
    std::vector<Extents> memory;     // by chunk
    std::vector<Extents> rewritten;  // the same; empty while nothing is
  };

  SnapshotWriter(Options options, std::vector<Block> blocks, UniqueFd file, std::string temporary);
  Status Store(Extent& extent, std::span<const std::byte> bytes) HF_EXCLUDES(mutex_);
  std::uint64_t Allocate(std::uint64_t size, std::uint64_t alignment) HF_EXCLUDES(mutex_);
  Status WriteAt(std::span<const std::byte> bytes, std::uint64_t offset) const;
  Result<FilePiece> Append(std::span<const std::byte> bytes) HF_EXCLUDES(mutex_);
  Result<FilePiece> AppendTable(const std::vector<Extents>& chunks);

  const Options options_;
  const std::vector<Block> blocks_;
  UniqueFd file_;
  const std::string temporary_;
  bool finished_ = false;
  SnapshotHeader header_;

  // Threads that write chunks share these.
  Mutex mutex_;
  std::uint64_t end_ HF_GUARDED_BY(mutex_) = kSnapshotHeaderSize;
  std::vector<BlockIndex> index_ HF_GUARDED_BY(mutex_);
};

}  // namespace holdfast::migration
