// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include "machine/boot/boot_source.h"
#include "machine/boot/linux_params.h"
#include "machine/boot/pvh_abi.h"

// Tiny kernels made by code, and RAM to load them into, for the loaders' tests, for fuzzing and
// for its seeds.

namespace holdfast::machine::boot::testing {

using Image = std::vector<std::byte>;

/// A bzImage whose header the caller may still bend. The protected-mode part is filled with 0xc3.
struct BzImageSpec {
  SetupHeader header;  // a valid one for protocol 2.15 at first
  std::size_t payload_size = 4096;
  BzImageSpec();
};
Image MakeBzImage(const BzImageSpec& spec);

/// An ELF file with one loaded segment and one note segment, likewise.
struct PvhSpec {
  ElfHeader header;
  ProgramHeader load;
  ProgramHeader note;
  std::vector<std::byte> notes;  // the note segment's contents
  PvhSpec();
};
Image MakePvh(const PvhSpec& spec);
/// One ELF note.
std::vector<std::byte> MakeNote(const std::string& name, std::uint32_t type,
                                std::span<const std::byte> desc, std::size_t alignment);

/// An opened file with `bytes` in it that exists only in memory.
BootFile MakeBootFile(const std::string& name, std::span<const std::byte> bytes);

/// RAM of a small PC with its memory map, without KVM.
class TestRam {
 public:
  explicit TestRam(std::uint64_t size);
  const AddressSpace& space() const noexcept { return space_; }
  /// A source with this machine's map and an RSDP address.
  BootSource Source(std::span<const std::byte> kernel) const;
  template <typename T>
  T Get(GuestAddress address) const {
    T value{};
    (void)space_.Read(address, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  std::string GetString(GuestAddress address) const;

 private:
  std::unique_ptr<RamBlock> block_;  // outlives space_
  AddressSpace space_;
  MemoryMap map_;
};

}  // namespace holdfast::machine::boot::testing
