// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "base/state.h"
#include "base/thread_annotations.h"
#include "migration/snapshot_format.h"

namespace holdfast::migration {

/// One snapshot file, its header and directory checked. Tables of extents in parts, and memory, are
/// read and checked when they are first needed, so that opening a file takes the same time whatever
/// the size of the memory.
///
/// Thread-safety: const functions on any thread.
class SnapshotFile {
 public:
  /// @return what is wrong, naming the file: kNotFound, kMalformed for damage, kUnsupported for
  ///         files of later releases
  static Result<SnapshotFile> Open(const std::string& path);

  const std::string& path() const noexcept { return path_; }
  const SnapshotHeader& header() const noexcept { return header_; }
  const SnapshotDirectory& directory() const noexcept { return directory_; }
  /// How many layers of extents a block has, from the oldest to the newest.
  std::size_t layers(std::size_t block) const noexcept { return layers_[block].size(); }
  /// Extents of a layer, in order: all those of the chunk at `offset`, and others around them.
  /// @return kMalformed for a table that is damaged; the failed read. Another call tries again.
  Result<std::span<const Extent>> Extents(std::size_t block, std::size_t layer,
                                          std::uint64_t offset) const;
  /// Reads all sections. @return kMalformed naming the damaged one
  Result<std::vector<state::SavedSection>> ReadSections() const;
  /// Reads all of `to`. @return the failed read; kMalformed where the file ends before
  Status ReadAt(std::span<std::byte> to, std::uint64_t offset) const;
  int fd() const noexcept { return fd_.get(); }
  /// Bytes of memory in the file. Reads all tables. @return as Extents()
  Result<std::uint64_t> Stored() const;

 private:
  // A layer's table.
  struct Table {
    std::uint64_t part_size = 0;  // bytes of the block that each part is about
    std::vector<FilePiece> parts = {};
    Mutex mutex = {};
    // By part; what was once read stays as it is. Null: not read yet.
    std::vector<std::unique_ptr<const std::vector<Extent>>> extents HF_GUARDED_BY(mutex) = {};
  };
  SnapshotFile(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  Status Load();
  Result<std::unique_ptr<Table>> OpenTable(const BlockEntry& block, const FilePiece& piece);
  Result<std::vector<std::byte>> ReadPiece(const FilePiece& piece, std::string_view what) const;

  std::string path_;
  UniqueFd fd_;
  SnapshotHeader header_;
  std::uint64_t tables_ = 0;  // bytes of all tables
  SnapshotDirectory directory_;
  std::vector<std::vector<std::unique_ptr<Table>>> layers_;  // by block, by layer
};

/// A snapshot with all its parents: the memory as it was when the newest was taken.
///
/// Thread-safety: const functions on any thread.
class SnapshotChain {
 public:
  /// Opens `path` and, if it is a differential one, its parents up to the full one.
  /// @return as SnapshotFile::Open, and kMalformed for a parent that is not the one it was taken
  ///         from, or of other memory
  static Result<SnapshotChain> Open(const std::string& path);

  /// The newest, which `path` named; its sections and directory are the chain's.
  const SnapshotFile& newest() const noexcept { return files_.front(); }
  /// From the newest to the full one.
  const std::vector<SnapshotFile>& files() const noexcept { return files_; }
  const std::vector<BlockEntry>& blocks() const noexcept { return newest().directory().blocks; }
  std::optional<std::size_t> FindBlock(std::string_view id) const noexcept;

  /// Whether anything of the chunk is in a file: otherwise it is zero. A chunk whose table cannot
  /// be read counts as one that is, and ReadChunk() says what is wrong.
  bool HasChunk(std::size_t block, std::uint64_t offset) const noexcept;
  /// A piece of a block that ReadChunk() reads at once.
  struct Chunk {
    std::size_t block;
    std::uint64_t offset;
    std::uint64_t size;  ///< kSnapshotChunk, or less at a block's end
  };
  /// Those of which anything is in a file, in order.
  std::vector<Chunk> Chunks() const;
  /// An extent of a file, and which pages of its chunk are taken from it (bit 0: the first).
  struct PageRead {
    const SnapshotFile* file;  ///< lives as long as the chain
    Extent extent;             ///< has bytes in the file
    std::uint32_t pages;
    /// Where the file's bytes can be read to at once; empty: into memory of the caller's.
    std::span<std::byte> InPlace(std::span<std::byte> chunk) const noexcept;
    /// Checks the file's bytes and brings the pages where they belong, unless they are there.
    /// @return kMalformed if they are not what was written
    Status Put(std::span<const std::byte> stored, std::span<std::byte> chunk) const;
    /// The pages' place if all of the extent is taken, else empty.
    std::span<std::byte> Whole(std::span<std::byte> chunk) const noexcept;
  };
  struct Plan {
    std::vector<PageRead> reads = {};  ///< no two for one page
    std::uint32_t zero_pages = 0;      ///< zero, or in no file
    void PutZeroes(std::span<std::byte> chunk) const noexcept;
  };
  /// Where the pages of a chunk come from.
  /// @param size  kSnapshotChunk, or less at a block's end
  /// @return kMalformed naming file, block and offset of a damaged table; the failed read
  Result<Plan> PlanChunk(std::size_t block, std::uint64_t offset, std::uint64_t size) const;
  /// Puts file, block and offset in front of what is wrong with memory.
  Error Explain(Error error, const SnapshotFile& file, std::size_t block,
                std::uint64_t offset) const;
  /// Fills `to` with the contents of a block from `offset` (a multiple of kSnapshotChunk) on, up to
  /// the chunk's end at most. Pages that are in no file are left as they are if `skip_absent`, for
  /// memory that is zero already; else they are zeroed.
  /// @return kMalformed naming file, block and offset of what is damaged; the failed read. Then
  ///         `to` holds nothing that may be used.
  Status ReadChunk(std::size_t block, std::uint64_t offset, std::span<std::byte> to,
                   bool skip_absent = false) const;

 private:
  struct Layer {
    std::size_t file;
    std::size_t layer;  // of the file
  };
  explicit SnapshotChain(std::vector<SnapshotFile> files);

  std::vector<SnapshotFile> files_;
  std::vector<std::vector<Layer>> layers_;  // by block, the newest first
};

}  // namespace holdfast::migration
