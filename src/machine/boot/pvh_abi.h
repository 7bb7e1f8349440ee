// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

// The pieces of the ELF-64 object file format and of the PVH boot ABI (Xen's
// docs/misc/pvh.pandoc and public header arch-x86/hvm/start_info) that the PVH loader needs.

namespace holdfast::machine::boot {

static_assert(std::endian::native == std::endian::little);

inline constexpr std::uint8_t kElfClass64 = 2;
inline constexpr std::uint8_t kElfLittleEndian = 1;
inline constexpr std::uint16_t kElfExecutable = 2;
inline constexpr std::uint16_t kElfShared = 3;  // a position-independent executable
inline constexpr std::uint16_t kElfMachineX86 = 3;
inline constexpr std::uint16_t kElfMachineX8664 = 62;
inline constexpr std::uint32_t kSegmentLoad = 1;
inline constexpr std::uint32_t kSegmentNote = 4;

struct ElfHeader {
  std::uint8_t magic[4];
  std::uint8_t file_class;
  std::uint8_t byte_order;
  std::uint8_t ident_version;
  std::uint8_t unused[9];
  std::uint16_t type;
  std::uint16_t machine;
  std::uint32_t version;
  std::uint64_t entry;
  std::uint64_t phoff;
  std::uint64_t shoff;
  std::uint32_t flags;
  std::uint16_t ehsize;
  std::uint16_t phentsize;
  std::uint16_t phnum;
  std::uint16_t shentsize;
  std::uint16_t shnum;
  std::uint16_t shstrndx;
};
static_assert(sizeof(ElfHeader) == 64 && offsetof(ElfHeader, phoff) == 32);

struct ProgramHeader {
  std::uint32_t type;
  std::uint32_t flags;
  std::uint64_t offset;
  std::uint64_t vaddr;
  std::uint64_t paddr;
  std::uint64_t filesz;
  std::uint64_t memsz;
  std::uint64_t align;
};
static_assert(sizeof(ProgramHeader) == 56);

struct NoteHeader {
  std::uint32_t name_size;
  std::uint32_t desc_size;
  std::uint32_t type;
};
static_assert(sizeof(NoteHeader) == 12);

inline constexpr std::uint32_t kXenNotePhys32Entry = 18;
inline constexpr std::uint32_t kStartInfoMagic = 0x336ec578;  // "xEn3" with bit 7 of the E set
inline constexpr std::uint32_t kStartInfoVersion = 1;         // with a memory map

struct StartInfo {
  std::uint32_t magic;
  std::uint32_t version;
  std::uint32_t flags;
  std::uint32_t nr_modules;
  std::uint64_t modlist_paddr;
  std::uint64_t cmdline_paddr;
  std::uint64_t rsdp_paddr;
  std::uint64_t memmap_paddr;
  std::uint32_t memmap_entries;
  std::uint32_t reserved;
};
static_assert(sizeof(StartInfo) == 56 && offsetof(StartInfo, memmap_paddr) == 40);

struct StartInfoModule {
  std::uint64_t paddr;
  std::uint64_t size;
  std::uint64_t cmdline_paddr;
  std::uint64_t reserved;
};
static_assert(sizeof(StartInfoModule) == 32);

struct StartInfoMemory {
  std::uint64_t addr;
  std::uint64_t size;
  std::uint32_t type;
  std::uint32_t reserved;
};
static_assert(sizeof(StartInfoMemory) == 24);

}  // namespace holdfast::machine::boot
