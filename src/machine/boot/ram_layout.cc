// SPDX-License-Identifier: Apache-2.0
#include "machine/boot/ram_layout.h"

#include <algorithm>

#include <fmt/format.h>

#include <holdfast/units.h>

namespace holdfast::machine::boot {
namespace {

constexpr std::uint64_t kSplitFrom = 0xb0000000;  // RAM of this size and more is split
constexpr std::uint64_t kLowSizeIfSplit = 2 * kGiB;
constexpr std::uint64_t kHighBase = 4 * kGiB;

}  // namespace

Result<std::vector<RamRange>> PlanRam(std::uint64_t size, unsigned guest_phys_bits) {
  if (!IsPageAligned(size))
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("RAM size {} bytes is not a multiple of the page size {}", size, kPageSize));
  if (size < kMiB)
    return Fail(Errc::kInvalidArgument,
                fmt::format("RAM size {} is too small for a PC", FormatSize(size)),
                "Give the guest at least 1 MiB (-m).");

  if (size < kSplitFrom) return std::vector<RamRange>{{GuestAddress(0), size, 0}};

  const std::uint64_t limit = 1ULL << std::min(guest_phys_bits, kMaxAddressBits);
  const auto end = CheckedAdd(kHighBase, size - kLowSizeIfSplit);
  if (!end || *end > limit) {
    const std::uint64_t hole = kHighBase - kLowSizeIfSplit;
    return Fail(Errc::kInvalidArgument,
                fmt::format("RAM size {} does not fit the guest's address space of {}",
                            FormatSize(size), FormatSize(limit)),
                fmt::format("{} allows at most {} of RAM.",
                            guest_phys_bits < kMaxAddressBits
                                ? fmt::format("The CPU's {} physical address bits", guest_phys_bits)
                                : "The machine",
                            FormatSize(limit > hole ? limit - hole : 0)));
  }
  return std::vector<RamRange>{
      {GuestAddress(0), kLowSizeIfSplit, 0},
      {GuestAddress(kHighBase), size - kLowSizeIfSplit, kLowSizeIfSplit},
  };
}

std::vector<RamPiece> SplitRam(std::span<const RamRange> ranges,
                               std::span<const std::uint64_t> block_sizes) {
  std::vector<RamPiece> pieces;
  for (const RamRange& range : ranges) {
    const std::uint64_t range_end = range.ram_offset + range.size;
    std::uint64_t block_start = 0;  // in the machine's RAM
    for (std::size_t block = 0; block < block_sizes.size(); ++block) {
      const std::uint64_t block_end = block_start + block_sizes[block];
      const std::uint64_t start = std::max(range.ram_offset, block_start);
      const std::uint64_t end = std::min(range_end, block_end);
      if (start < end) {
        pieces.push_back({.block = block,
                          .base = range.base + (start - range.ram_offset),
                          .size = end - start,
                          .block_offset = start - block_start});
      }
      block_start = block_end;
    }
  }
  return pieces;
}

}  // namespace holdfast::machine::boot
