// SPDX-License-Identifier: Apache-2.0
// The parts of a snapshot file, as they are once their checksums were found right: the first byte
// says which part, the rest is it. A decoder that takes something must have taken what fits.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <span>

#include <holdfast/units.h>

#include "base/hash.h"
#include "migration/snapshot_format.h"

namespace {

using namespace holdfast;
using namespace holdfast::migration;

constexpr std::uint64_t kFileSize = 1ULL << 24;

void Require(bool held) {
  if (!held) std::abort();
}

void Header(std::span<const std::byte> input) {
  // The checksum made right, as whoever forges a file does.
  std::array<std::byte, kSnapshotHeaderSize> bytes{};
  std::ranges::copy(input.first(std::min(input.size(), bytes.size() - 8)), bytes.begin());
  const std::uint64_t hash = Hash64(std::span(bytes).first(bytes.size() - 8));
  for (std::size_t i = 0; i < 8; ++i)
    bytes[bytes.size() - 8 + i] = static_cast<std::byte>(hash >> (8 * i));
  const auto header = DecodeHeader(bytes, kFileSize);
  if (!header) return;
  Require(header->directory_offset <= kFileSize &&
          header->directory_size <= kFileSize - header->directory_offset);
}

void Directory(std::span<const std::byte> input) {
  const auto directory = DecodeDirectory(input, {.file_size = kFileSize});
  if (!directory) return;
  const auto inside = [](const FilePiece& piece) {
    return piece.offset <= kFileSize && piece.size <= kFileSize - piece.offset;
  };
  for (const auto& section : directory->sections) Require(inside(section.piece));
  for (const auto& block : directory->blocks) {
    Require(block.size != 0 && IsPageAligned(block.size));
    for (const auto& layer : block.layers) Require(inside(layer));
  }
}

void Extents(std::span<const std::byte> input) {
  constexpr std::uint64_t kBlock = 1ULL << 32;
  const auto extents =
      DecodeExtents(input, kBlock, {.features = kSnapshotZstd, .file_size = kFileSize});
  if (!extents) return;
  std::uint64_t end = 0;
  for (const Extent& extent : *extents) {
    Require(extent.offset >= end && extent.length != 0 && extent.end() <= kBlock);
    Require(extent.offset / kSnapshotChunk == (extent.end() - 1) / kSnapshotChunk);
    Require(extent.stored <= extent.length && extent.file_offset <= kFileSize - extent.stored);
    end = extent.end();
  }
}

void Parts(std::span<const std::byte> input) {
  constexpr std::uint64_t kBlock = 2 * kSnapshotPart + kPageSize;
  const auto parts = DecodeParts(input, kBlock, {.file_size = kFileSize});
  if (!parts) return;
  Require(parts->size() == 3);
  for (const FilePiece& part : *parts) {
    Require(part.size == 0 || (part.offset <= kFileSize && part.size <= kFileSize - part.offset));
    Require(part.size % kExtentSize == 0 && part.size <= kSnapshotPart / kPageSize * kExtentSize);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const auto input = std::as_bytes(std::span(data, size)).subspan(1);
  switch (data[0] % 4) {
    case 0:
      Header(input);
      break;
    case 1:
      Directory(input);
      break;
    case 3:
      Parts(input);
      break;
    default:
      Extents(input);
      break;
  }
  return 0;
}
