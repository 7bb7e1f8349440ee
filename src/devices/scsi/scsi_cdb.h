// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "devices/scsi/scsi_defs.h"

namespace holdfast::devices::scsi {

/// A command descriptor block, its numbers read. The bytes are the guest's; this is a copy.
struct Cdb {
  std::uint8_t opcode = 0;
  std::span<const std::uint8_t> bytes;  ///< as long as the opcode's group says
  std::uint64_t lba = 0;
  /// Blocks, or bytes of parameters, or the allocation length, as the opcode has it.
  std::uint32_t length = 0;
};

/// Reads the numbers out of a CDB. `bytes` outlives the answer.
/// @return nothing if it is shorter than its opcode asks for, or of a group without a length
std::optional<Cdb> ParseCdb(std::span<const std::uint8_t> bytes);

/// A part of a disk, in blocks.
struct BlockRange {
  std::uint64_t lba = 0;
  std::uint32_t count = 0;
  bool operator==(const BlockRange&) const = default;
};

/// The most ranges one UNMAP may have; told in VPD page 0xb0.
inline constexpr std::size_t kMostUnmapRanges = 255;

/// Reads UNMAP's parameters (SBC-3, 5.28). @return nothing if they break their format
std::optional<std::vector<BlockRange>> ParseUnmap(std::span<const std::uint8_t> parameters);

/// What MODE SELECT may change: the write cache. @return nothing if the parameters break their
/// format or change anything else; an empty answer inside: nothing is to be changed
struct ModeChange {
  std::optional<bool> write_cache;
};
std::optional<ModeChange> ParseModeSelect(std::span<const std::uint8_t> parameters, bool ten);

// Big-endian numbers, as SCSI has them.
std::uint64_t LoadBig(std::span<const std::uint8_t> bytes, std::size_t offset, std::size_t size);
void StoreBig(std::span<std::uint8_t> bytes, std::size_t offset, std::size_t size,
              std::uint64_t value);

}  // namespace holdfast::devices::scsi
