// SPDX-License-Identifier: Apache-2.0
#include "devices/scsi/scsi_cdb.h"

namespace holdfast::devices::scsi {
namespace {

// The CDB's size by group, the opcode's upper three bits (SPC-4, 4.2.5.1).
std::size_t GroupSize(std::uint8_t opcode) {
  switch (opcode >> 5) {
    case 0:
      return 6;
    case 1:
    case 2:
      return 10;
    case 4:
      return 16;
    case 5:
      return 12;
    default:
      return 0;
  }
}

constexpr std::uint8_t kCachingPage = 0x08;
constexpr std::size_t kCachingPageSize = 20;
constexpr std::uint8_t kWriteCacheEnable = 1U << 2;

}  // namespace

std::uint64_t LoadBig(std::span<const std::uint8_t> bytes, std::size_t offset, std::size_t size) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < size; ++i) value = value << 8 | bytes[offset + i];
  return value;
}

void StoreBig(std::span<std::uint8_t> bytes, std::size_t offset, std::size_t size,
              std::uint64_t value) {
  for (std::size_t i = size; i-- > 0; value >>= 8) {
    bytes[offset + i] = static_cast<std::uint8_t>(value);
  }
}

std::optional<Cdb> ParseCdb(std::span<const std::uint8_t> bytes) {
  if (bytes.empty()) return std::nullopt;
  const std::size_t size = GroupSize(bytes[0]);
  if (size == 0 || bytes.size() < size) return std::nullopt;
  Cdb cdb{.opcode = bytes[0], .bytes = bytes.first(size)};
  const auto length = [&](std::size_t offset, std::size_t width) {
    cdb.length = static_cast<std::uint32_t>(LoadBig(bytes, offset, width));
  };
  switch (size) {
    case 6:
      cdb.lba = LoadBig(bytes, 1, 3) & 0x1fffff;
      length(4, 1);
      // Reads and writes of 0 blocks mean 256 in this form only.
      if ((cdb.opcode == kRead6 || cdb.opcode == kWrite6) && cdb.length == 0) cdb.length = 256;
      // INQUIRY's allocation length has grown to two bytes.
      if (cdb.opcode == kInquiry) length(3, 2);
      break;
    case 10:
      cdb.lba = LoadBig(bytes, 2, 4);
      length(7, 2);
      break;
    case 12:
      cdb.lba = LoadBig(bytes, 2, 4);
      length(cdb.opcode == kMechanismStatus ? 8 : 6, cdb.opcode == kMechanismStatus ? 2 : 4);
      break;
    default:
      cdb.lba = LoadBig(bytes, 2, 8);
      length(10, 4);
      break;
  }
  return cdb;
}

std::optional<std::vector<BlockRange>> ParseUnmap(std::span<const std::uint8_t> parameters) {
  constexpr std::size_t kHeader = 8;
  constexpr std::size_t kRange = 16;
  std::vector<BlockRange> ranges;
  if (parameters.empty()) return ranges;
  if (parameters.size() < kHeader) return std::nullopt;
  const std::uint64_t data = LoadBig(parameters, 0, 2);
  const std::uint64_t size = LoadBig(parameters, 2, 2);
  if (data + 2 > parameters.size() || size + kHeader > parameters.size() || size % kRange != 0 ||
      size / kRange > kMostUnmapRanges) {
    return std::nullopt;
  }
  for (std::size_t at = kHeader; at < kHeader + size; at += kRange) {
    ranges.push_back({.lba = LoadBig(parameters, at, 8),
                      .count = static_cast<std::uint32_t>(LoadBig(parameters, at + 8, 4))});
  }
  return ranges;
}

std::optional<ModeChange> ParseModeSelect(std::span<const std::uint8_t> parameters, bool ten) {
  const std::size_t header = ten ? 8 : 4;
  ModeChange change;
  if (parameters.empty()) return change;
  if (parameters.size() < header) return std::nullopt;
  const std::uint64_t descriptors = ten ? LoadBig(parameters, 6, 2) : parameters[3];
  if (descriptors > parameters.size() - header) return std::nullopt;
  std::span<const std::uint8_t> pages = parameters.subspan(header + descriptors);
  while (!pages.empty()) {
    if (pages.size() < 2) return std::nullopt;
    const std::size_t size = std::size_t{pages[1]} + 2;
    if ((pages[0] & 0x40) != 0 || size > pages.size()) return std::nullopt;
    if ((pages[0] & 0x3f) == kCachingPage) {
      if (size < kCachingPageSize) return std::nullopt;
      change.write_cache = (pages[2] & kWriteCacheEnable) != 0;
    }
    pages = pages.subspan(size);
  }
  return change;
}

}  // namespace holdfast::devices::scsi
