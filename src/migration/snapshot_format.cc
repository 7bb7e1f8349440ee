// SPDX-License-Identifier: Apache-2.0
#include "migration/snapshot_format.h"

#include <fmt/format.h>
#include <holdfast/units.h>

#include <algorithm>
#include <concepts>

#include "base/hash.h"
#include "base/state.h"

namespace holdfast::migration {
namespace {

// As PNG has it: a byte that is no text, a name, and line ends that a transfer as text breaks.
constexpr std::array<std::uint8_t, 8> kMagic{0x89, 'H', 'F', 'S', 'N', '\r', '\n', 0x1a};
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeaderHashAt = kSnapshotHeaderSize - 8;
constexpr std::uint32_t kDirectoryVersion = 1;

// More than any machine has: a damaged directory must not make us allocate without end.
constexpr std::size_t kMostText = 65536;
constexpr std::size_t kMostSections = 65536;
constexpr std::size_t kMostBlocks = 4096;
constexpr std::size_t kMostLayers = 16;
constexpr std::size_t kMostWords = 16384;

template <std::unsigned_integral T>
void Put(std::span<std::byte> to, std::size_t at, T value) {
  for (std::size_t i = 0; i < sizeof(T); ++i) to[at + i] = static_cast<std::byte>(value >> (8 * i));
}

template <std::unsigned_integral T>
T Get(std::span<const std::byte> from, std::size_t at) {
  T value = 0;
  for (std::size_t i = 0; i < sizeof(T); ++i)
    value |= static_cast<T>(std::to_integer<T>(from[at + i]) << (8 * i));
  return value;
}

bool Inside(std::uint64_t offset, std::uint64_t size, std::uint64_t file_size) {
  return offset >= kSnapshotHeaderSize && offset <= file_size && size <= file_size - offset;
}

void VisitPiece(state::Fields& fields, FilePiece& piece) {
  fields.Value("offset", piece.offset);
  fields.Value("size", piece.size);
  fields.Value("hash", piece.hash);
}

void VisitDirectory(state::Fields& fields, SnapshotDirectory& directory) {
  fields.Text("creator", directory.creator, kMostText);
  fields.Value("created", directory.created);
  fields.Text("name", directory.name, kMostText);
  fields.Value("running", directory.running);
  fields.Text("parent-file", directory.parent_file, kMostText);
  fields.List("command-line", directory.command_line, kMostWords,
              [](state::Fields& inner, std::string& word) { inner.Text("word", word, kMostText); });
  fields.List("sections", directory.sections, kMostSections,
              [](state::Fields& inner, SectionEntry& section) {
                inner.Text("name", section.name, kMostText);
                inner.Value("version", section.version);
                VisitPiece(inner, section.piece);
              });
  fields.List("blocks", directory.blocks, kMostBlocks, [](state::Fields& inner, BlockEntry& block) {
    inner.Text("id", block.id, kMostText);
    inner.Value("size", block.size);
    inner.List("layers", block.layers, kMostLayers, VisitPiece);
  });
}

std::string_view WrongExtent(const Extent& extent, std::uint64_t previous_end, std::uint64_t limit,
                             const SnapshotHeader& header) {
  if (extent.length == 0 || !IsPageAligned(extent.offset) || !IsPageAligned(extent.length))
    return "is not whole pages";
  if (extent.offset >= limit || extent.length > limit - extent.offset)
    return "lies outside its block";
  if (extent.offset % kSnapshotChunk + extent.length > kSnapshotChunk)
    return "crosses the end of a chunk";
  if (extent.offset < previous_end) return "is out of order";
  switch (extent.kind) {
    case Extent::Kind::kZero:
      return extent.stored == 0 && extent.file_offset == 0 ? "" : "stores zeroes";
    case Extent::Kind::kRaw:
      if (extent.stored != extent.length || !IsPageAligned(extent.file_offset))
        return "is stored wrongly";
      break;
    case Extent::Kind::kZstd:
      if ((header.features & kSnapshotZstd) == 0 || extent.stored == 0 ||
          extent.stored >= extent.length)
        return "is stored wrongly";
      break;
    default:
      return "is of no known kind";
  }
  return Inside(extent.file_offset, extent.stored, header.file_size) ? "" : "lies outside the file";
}

}  // namespace

std::string ToString(const SnapshotId& id) {
  return fmt::format("{:02x}", fmt::join(id, ""));
}

std::array<std::byte, kSnapshotHeaderSize> EncodeHeader(const SnapshotHeader& header) {
  std::array<std::byte, kSnapshotHeaderSize> bytes{};
  std::ranges::copy(std::as_bytes(std::span(kMagic)), bytes.begin());
  Put(bytes, 8, kVersion);
  Put(bytes, 12, static_cast<std::uint32_t>(kSnapshotHeaderSize));
  Put(bytes, 16, header.features);
  Put(bytes, 24, header.file_size);
  std::ranges::copy(std::as_bytes(std::span(header.id)), bytes.begin() + 32);
  std::ranges::copy(std::as_bytes(std::span(header.parent)), bytes.begin() + 48);
  Put(bytes, 64, header.directory_offset);
  Put(bytes, 72, header.directory_size);
  Put(bytes, 80, header.directory_hash);
  Put(bytes, kHeaderHashAt, Hash64(std::span(bytes).first(kHeaderHashAt)));
  return bytes;
}

Result<SnapshotHeader> DecodeHeader(std::span<const std::byte> bytes, std::uint64_t file_size) {
  if (bytes.size() < kSnapshotHeaderSize ||
      !std::ranges::equal(bytes.first(kMagic.size()), std::as_bytes(std::span(kMagic)))) {
    return Fail(Errc::kMalformed, "it is no snapshot of Holdfast",
                "Give a file that 'holdfastctl snapshot create' has written.");
  }
  if (Get<std::uint64_t>(bytes, kHeaderHashAt) != Hash64(bytes.first(kHeaderHashAt)))
    return Fail(Errc::kMalformed, "its header is damaged");
  const auto version = Get<std::uint32_t>(bytes, 8);
  if (version != kVersion || Get<std::uint32_t>(bytes, 12) != kSnapshotHeaderSize) {
    return Fail(Errc::kUnsupported,
                fmt::format("it has format version {}; version {} is known", version, kVersion),
                "It is from a later release of Holdfast.");
  }
  SnapshotHeader header;
  header.features = Get<std::uint64_t>(bytes, 16);
  if ((header.features & ~kSnapshotFeatures) != 0) {
    return Fail(Errc::kUnsupported,
                fmt::format("it needs features ({:#x}) that this release does not know",
                            header.features & ~kSnapshotFeatures),
                "It is from a later release of Holdfast.");
  }
  header.file_size = Get<std::uint64_t>(bytes, 24);
  std::ranges::copy(bytes.subspan(32, 16), std::as_writable_bytes(std::span(header.id)).begin());
  std::ranges::copy(bytes.subspan(48, 16),
                    std::as_writable_bytes(std::span(header.parent)).begin());
  header.directory_offset = Get<std::uint64_t>(bytes, 64);
  header.directory_size = Get<std::uint64_t>(bytes, 72);
  header.directory_hash = Get<std::uint64_t>(bytes, 80);
  if (header.file_size != file_size) {
    return Fail(Errc::kMalformed,
                fmt::format("it has {} bytes and should have {}", file_size, header.file_size),
                "It was cut short or something was appended.");
  }
  if (!Inside(header.directory_offset, header.directory_size, file_size))
    return Fail(Errc::kMalformed, "its directory lies outside the file");
  return header;
}

std::vector<std::byte> EncodeDirectory(SnapshotDirectory directory) {
  state::Fields fields(kDirectoryVersion);
  VisitDirectory(fields, directory);
  return std::move(fields).Take();
}

Result<SnapshotDirectory> DecodeDirectory(std::span<const std::byte> bytes,
                                          const SnapshotHeader& header) {
  SnapshotDirectory directory;
  state::Fields fields(kDirectoryVersion, bytes);
  VisitDirectory(fields, directory);
  if (auto status = fields.status(); !status)
    return Fail(std::move(status).error().Wrap("its directory is wrong"));
  const auto check = [&](const FilePiece& piece, const std::string& what) -> Status {
    if (Inside(piece.offset, piece.size, header.file_size)) return {};
    return Fail(Errc::kMalformed, fmt::format("{} lies outside the file", what));
  };
  for (const SectionEntry& section : directory.sections) {
    HF_TRY_STATUS(check(section.piece, fmt::format("its section '{}'", section.name)));
  }
  for (const BlockEntry& block : directory.blocks) {
    if (block.size == 0 || !IsPageAligned(block.size)) {
      return Fail(Errc::kMalformed, fmt::format("its memory '{}' is not whole pages", block.id));
    }
    for (const FilePiece& layer : block.layers) {
      HF_TRY_STATUS(check(layer, fmt::format("a table of its memory '{}'", block.id)));
      const bool parts = (header.features & kSnapshotParts) != 0;
      if (layer.size % (parts ? kPartSize : kExtentSize) != 0) {
        return Fail(Errc::kMalformed,
                    fmt::format("a table of its memory '{}' is cut short", block.id));
      }
    }
  }
  return directory;
}

std::vector<std::byte> EncodeExtents(std::span<const Extent> extents) {
  std::vector<std::byte> bytes(extents.size() * kExtentSize);
  std::size_t at = 0;
  for (const Extent& extent : extents) {
    Put(bytes, at, extent.offset);
    Put(bytes, at + 8, extent.length);
    Put(bytes, at + 12, static_cast<std::uint32_t>(extent.kind));
    Put(bytes, at + 16, extent.file_offset);
    Put(bytes, at + 24, extent.stored);
    Put(bytes, at + 32, extent.hash);
    at += kExtentSize;
  }
  return bytes;
}

Result<std::vector<Extent>> DecodeExtents(std::span<const std::byte> bytes, std::uint64_t end,
                                          const SnapshotHeader& header, std::uint64_t begin) {
  std::vector<Extent> extents;
  extents.reserve(bytes.size() / kExtentSize);
  std::uint64_t previous_end = begin;
  for (std::size_t at = 0; at + kExtentSize <= bytes.size(); at += kExtentSize) {
    Extent extent;
    extent.offset = Get<std::uint64_t>(bytes, at);
    extent.length = Get<std::uint32_t>(bytes, at + 8);
    extent.kind = static_cast<Extent::Kind>(Get<std::uint32_t>(bytes, at + 12));
    extent.file_offset = Get<std::uint64_t>(bytes, at + 16);
    extent.stored = Get<std::uint32_t>(bytes, at + 24);
    extent.hash = Get<std::uint64_t>(bytes, at + 32);
    const std::string_view wrong = WrongExtent(extent, previous_end, end, header);
    if (!wrong.empty()) {
      return Fail(Errc::kMalformed,
                  fmt::format("the extent of memory at {:#x} {}", extent.offset, wrong));
    }
    previous_end = extent.end();
    extents.push_back(extent);
  }
  return extents;
}

std::vector<std::byte> EncodeParts(std::span<const FilePiece> parts) {
  std::vector<std::byte> bytes(parts.size() * kPartSize);
  std::size_t at = 0;
  for (const FilePiece& part : parts) {
    Put(bytes, at, part.offset);
    Put(bytes, at + 8, part.size);
    Put(bytes, at + 16, part.hash);
    at += kPartSize;
  }
  return bytes;
}

Result<std::vector<FilePiece>> DecodeParts(std::span<const std::byte> bytes,
                                           std::uint64_t block_size, const SnapshotHeader& header) {
  // An extent for each page is the most that a part can have.
  constexpr std::uint64_t kMostBytes = kSnapshotPart / kPageSize * kExtentSize;
  const std::uint64_t count = block_size / kSnapshotPart + (block_size % kSnapshotPart != 0);
  if (bytes.size() / kPartSize != count || bytes.size() % kPartSize != 0) {
    return Fail(Errc::kMalformed, fmt::format("a table of memory has {} parts and should have {}",
                                              bytes.size() / kPartSize, count));
  }
  std::vector<FilePiece> parts;
  parts.reserve(count);
  for (std::size_t at = 0; at < bytes.size(); at += kPartSize) {
    const FilePiece part{.offset = Get<std::uint64_t>(bytes, at),
                         .size = Get<std::uint64_t>(bytes, at + 8),
                         .hash = Get<std::uint64_t>(bytes, at + 16)};
    if (part.size % kExtentSize != 0 || part.size > kMostBytes ||
        (part.size != 0 && !Inside(part.offset, part.size, header.file_size))) {
      return Fail(Errc::kMalformed,
                  fmt::format("the part of a table for memory from {:#x} on cannot be",
                              at / kPartSize * kSnapshotPart));
    }
    parts.push_back(part);
  }
  return parts;
}

}  // namespace holdfast::migration
