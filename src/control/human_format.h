// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>

#include "machine/cpu_info.h"

/// What the human monitor prints, made from plain data. The forms are QEMU's: people and scripts
/// read them.
namespace holdfast::control {

/// How `x` and `xp` show memory: `/COUNT FORMAT SIZE`, each part optional.
struct DumpFormat {
  std::uint64_t count = 1;
  char format = 'x';  ///< x hexadecimal, d signed, u unsigned, o octal, c character
  unsigned size = 4;  ///< bytes of one value: 1, 2, 4 or 8

  std::uint64_t bytes() const noexcept { return count * size; }
};

/// The most one `x` or `xp` shows. It is all made before it is printed.
inline constexpr std::uint64_t kMostDumped = 64 * 1024;

/// Reads what stands behind the `/`: "8xg", "16", "c". `text` is without the slash.
/// @return kInvalidArgument with the accepted form as its hint.
Result<DumpFormat> ParseDumpFormat(std::string_view text);

/// Formats `data`, which starts at `address`, in lines of 8 (bytes) or 16 (others) bytes.
std::string FormatDump(const DumpFormat& format, std::uint64_t address,
                       std::span<const std::byte> data);

/// A vCPU's registers as `info registers` prints them.
std::string FormatRegisters(unsigned index, const machine::VcpuRegisters& set);

/// The value of an address as people write it: numbers (0x…, 0…, decimal) and registers ($rip, $pc,
/// $sp, $rax, $cr3 …), joined by + and -. It wraps as addresses do.
/// @return kInvalidArgument naming the part that is neither.
Result<std::uint64_t> EvaluateAddress(std::string_view text, const machine::VcpuRegisters& set);

/// A row of `info ramblock`.
struct RamBlockRow {
  std::string name;
  std::uint64_t offset = 0;  ///< in the list of all blocks, each after the other
  std::uint64_t size = 0;
  std::uint64_t host_address = 0;
  bool read_only = false;
};
std::string FormatRamBlocks(std::span<const RamBlockRow> rows);

/// A range of `info mtree`: [begin, end], both inclusive, of kind "ram" or "i/o".
struct MemoryTreeRow {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::string_view kind;
  std::string name;
  std::uint64_t alias_offset = 0;  ///< where in the RAM block it starts
};
/// One address space; `flat` is `info mtree -f`.
std::string FormatMemoryTree(std::string_view space, std::string_view root, std::uint64_t last,
                             std::span<const MemoryTreeRow> rows, bool flat);

}  // namespace holdfast::control
