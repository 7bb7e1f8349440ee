// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/guest_address.h>

namespace holdfast::machine::boot {

/// The machine ends its guest physical address space here, whatever the host offers.
inline constexpr unsigned kMaxAddressBits = 40;  // 1 TiB

/// A contiguous piece of guest RAM and where in the machine's RAM, all its blocks one behind the
/// other, it comes from.
struct RamRange {
  GuestAddress base;
  std::uint64_t size;        // bytes
  std::uint64_t ram_offset;  // bytes
  constexpr std::uint64_t end() const noexcept { return base.value() + size; }
};

/// Lays `size` bytes of RAM out as QEMU's q35 does: below 0xb0000000 all of it from address 0;
/// from there on the first 2 GiB at 0 and the rest from 4 GiB up, which leaves the space between
/// for devices.
/// @param guest_phys_bits  physical address bits the guest's CPUs have
/// @return one or two ranges in ascending order; kInvalidArgument if `size` is not a page
///         multiple, is below 1 MiB or ends beyond the address space.
Result<std::vector<RamRange>> PlanRam(std::uint64_t size, unsigned guest_phys_bits);

/// The part of a range that comes from one block (or belongs to one NUMA node).
struct RamPiece {
  std::size_t block;  // number of the block
  GuestAddress base;
  std::uint64_t size;          // bytes, not 0
  std::uint64_t block_offset;  // bytes
  constexpr std::uint64_t end() const noexcept { return base.value() + size; }
};

/// Cuts ranges of PlanRam() where a block ends. `block_sizes` may hold zeroes and sums up to what
/// the ranges were planned for; ranges beyond the sum are left out.
/// @return the pieces in ascending order of addresses
std::vector<RamPiece> SplitRam(std::span<const RamRange> ranges,
                               std::span<const std::uint64_t> block_sizes);

}  // namespace holdfast::machine::boot
