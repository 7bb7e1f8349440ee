// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <holdfast/error.h>

// The bytes of a snapshot file, as docs/formats/snapshot.md describes them. Nothing here touches a
// file: what was read comes in, what is to be written goes out.
namespace holdfast::migration {

inline constexpr std::uint64_t kSnapshotHeaderSize = 4096;
/// Memory is cut at multiples of this: no extent crosses one, so that each chunk can be read and
/// checked by itself.
inline constexpr std::uint64_t kSnapshotChunk = 64 * 1024;
/// One file of a chain and all its parents.
inline constexpr std::size_t kMostSnapshotFiles = 256;

/// Names a snapshot: random, 128 bits.
using SnapshotId = std::array<std::uint8_t, 16>;
/// "9f86d081884c7d65…", 32 digits.
std::string ToString(const SnapshotId& id);

/// Bits of SnapshotHeader::features: what a reader must know to read the file at all.
enum SnapshotFeature : std::uint64_t {
  kSnapshotDiff = 1U << 0,   ///< has a parent; pages that no extent has are the parent's
  kSnapshotZstd = 1U << 1,   ///< some extents are compressed
  kSnapshotParts = 1U << 2,  ///< tables of extents are in parts, each with a checksum of its own
};
inline constexpr std::uint64_t kSnapshotFeatures = kSnapshotDiff | kSnapshotZstd | kSnapshotParts;

struct SnapshotHeader {
  std::uint64_t features = 0;
  std::uint64_t file_size = 0;  ///< bytes
  SnapshotId id{};
  SnapshotId parent{};  ///< of a differential one
  std::uint64_t directory_offset = 0;
  std::uint64_t directory_size = 0;
  std::uint64_t directory_hash = 0;
  bool diff() const noexcept { return (features & kSnapshotDiff) != 0; }
};

std::array<std::byte, kSnapshotHeaderSize> EncodeHeader(const SnapshotHeader& header);
/// @param bytes  the first kSnapshotHeaderSize bytes of the file
/// @param file_size  how long the file is
/// @return kMalformed for anything that is not a snapshot, is damaged or cut short; kUnsupported
///         for a version or a feature of later releases
Result<SnapshotHeader> DecodeHeader(std::span<const std::byte> bytes, std::uint64_t file_size);

/// A piece of a file with its checksum.
struct FilePiece {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
  std::uint64_t hash = 0;  ///< of the piece as it is in the file
};

/// A section of state (base/state.h) in the file.
struct SectionEntry {
  std::string name = {};
  std::uint32_t version = 1;
  FilePiece piece = {};
};

/// The pages of one RAM block.
struct BlockEntry {
  std::string id = {};
  std::uint64_t size = 0;  ///< bytes
  /// Tables of extents, from the oldest to the newest; a later one hides what an earlier one says
  /// of the same page. A live snapshot has two: its memory, and what was written meanwhile.
  /// With kSnapshotParts they are tables of parts.
  std::vector<FilePiece> layers = {};
};

/// Where everything is, and where it came from.
struct SnapshotDirectory {
  std::string creator = {};      ///< "holdfast 0.1.0"
  std::uint64_t created = 0;     ///< seconds since 1970
  std::string name = {};         ///< of the virtual machine, perhaps empty
  bool running = false;          ///< the guest ran when it was taken
  std::string parent_file = {};  ///< relative to the file's folder; of a differential one
  std::vector<std::string> command_line = {};  ///< of the monitor, without its own name
  std::vector<SectionEntry> sections = {};
  std::vector<BlockEntry> blocks = {};
};

std::vector<std::byte> EncodeDirectory(SnapshotDirectory directory);
/// @return kMalformed, also for a piece that lies outside the file
Result<SnapshotDirectory> DecodeDirectory(std::span<const std::byte> bytes,
                                          const SnapshotHeader& header);

/// Some pages of a block.
struct Extent {
  enum class Kind : std::uint32_t {
    kRaw = 0,   ///< the pages, at a multiple of 4096 in the file
    kZero = 1,  ///< zeroes; nothing in the file
    kZstd = 2,  ///< one zstd frame
  };
  std::uint64_t offset = 0;  ///< in the block, a page multiple
  std::uint32_t length = 0;  ///< bytes, a page multiple
  Kind kind = Kind::kRaw;
  std::uint64_t file_offset = 0;
  std::uint32_t stored = 0;  ///< bytes in the file
  std::uint64_t hash = 0;    ///< of these
  std::uint64_t end() const noexcept { return offset + length; }
};

/// Bytes of an extent in its table.
inline constexpr std::size_t kExtentSize = 40;
std::vector<std::byte> EncodeExtents(std::span<const Extent> extents);
/// @param bytes  a table, or part of one, whose checksum was right
/// @param end  all extents lie below it in the block: its size, or the end of the part
/// @param begin  all extents lie above it: where the part begins
/// @return kMalformed for extents that overlap, are out of order, cross a chunk's end, or lie
///         outside these limits or the file
Result<std::vector<Extent>> DecodeExtents(std::span<const std::byte> bytes, std::uint64_t end,
                                          const SnapshotHeader& header, std::uint64_t begin = 0);

/// So much of a block is in each part of a table of extents, so that a restore reads the tables of
/// the memory that it needs and no others.
inline constexpr std::uint64_t kSnapshotPart = 16 * 1024 * 1024;
/// Bytes of a part in the table of parts.
inline constexpr std::size_t kPartSize = 24;
/// @param parts  one for each kSnapshotPart of the block; of size 0 where there are no extents
std::vector<std::byte> EncodeParts(std::span<const FilePiece> parts);
/// @param bytes  a table of parts whose checksum was right
/// @return kMalformed for another number of parts than the block needs, for parts that hold more
///         than extents for each page, or lie outside the file
Result<std::vector<FilePiece>> DecodeParts(std::span<const std::byte> bytes,
                                           std::uint64_t block_size, const SnapshotHeader& header);

}  // namespace holdfast::migration
