// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

// The Linux x86 boot protocol's structures, as the kernel's Documentation/arch/x86/boot.rst and
// zero-page.rst give them; fields nobody here uses are padding.

namespace holdfast::machine::boot {

static_assert(std::endian::native == std::endian::little);

inline constexpr std::size_t kSetupHeaderOffset = 0x1f1;  // in the file and in the zero page
inline constexpr std::uint16_t kBootFlag = 0xaa55;
inline constexpr std::uint32_t kHeaderMagic = 0x53726448;     // "HdrS"
inline constexpr std::uint8_t kLoaderUnassigned = 0xff;       // type_of_loader: no number assigned
inline constexpr std::uint16_t kVideoModeNormal = 0xffff;     // vid_mode
inline constexpr std::uint8_t kLoadedHigh = 1 << 0;           // loadflags: bzImage, not zImage
inline constexpr std::uint16_t kKernel64 = 1 << 0;            // xloadflags: entry at 0x200
inline constexpr std::uint16_t kCanBeLoadedAbove4G = 1 << 1;  // xloadflags

#pragma pack(push, 1)

/// The setup header: the kernel's answers in the file, the loader's in the zero page.
struct SetupHeader {
  std::uint8_t setup_sects;
  std::uint16_t root_flags;
  std::uint32_t syssize;
  std::uint16_t ram_size;
  std::uint16_t vid_mode;
  std::uint16_t root_dev;
  std::uint16_t boot_flag;
  std::uint8_t jump_opcode;
  std::uint8_t jump_distance;  // the header ends this many bytes after 0x202
  std::uint32_t header;
  std::uint16_t version;  // 0x020c: 2.12
  std::uint32_t realmode_swtch;
  std::uint16_t start_sys_seg;
  std::uint16_t kernel_version;
  std::uint8_t type_of_loader;
  std::uint8_t loadflags;
  std::uint16_t setup_move_size;
  std::uint32_t code32_start;
  std::uint32_t ramdisk_image;
  std::uint32_t ramdisk_size;
  std::uint32_t bootsect_kludge;
  std::uint16_t heap_end_ptr;
  std::uint8_t ext_loader_ver;
  std::uint8_t ext_loader_type;
  std::uint32_t cmd_line_ptr;
  std::uint32_t initrd_addr_max;
  std::uint32_t kernel_alignment;
  std::uint8_t relocatable_kernel;
  std::uint8_t min_alignment;
  std::uint16_t xloadflags;
  std::uint32_t cmdline_size;
  std::uint32_t hardware_subarch;
  std::uint64_t hardware_subarch_data;
  std::uint32_t payload_offset;
  std::uint32_t payload_length;
  std::uint64_t setup_data;
  std::uint64_t pref_address;
  std::uint32_t init_size;
  std::uint32_t handover_offset;     // last of protocol 2.12
  std::uint32_t kernel_info_offset;  // 2.15
};
static_assert(kSetupHeaderOffset + offsetof(SetupHeader, boot_flag) == 0x1fe);
static_assert(kSetupHeaderOffset + offsetof(SetupHeader, header) == 0x202);
static_assert(kSetupHeaderOffset + offsetof(SetupHeader, type_of_loader) == 0x210);
static_assert(kSetupHeaderOffset + offsetof(SetupHeader, ramdisk_image) == 0x218);
static_assert(kSetupHeaderOffset + offsetof(SetupHeader, cmd_line_ptr) == 0x228);
static_assert(kSetupHeaderOffset + offsetof(SetupHeader, xloadflags) == 0x236);
static_assert(kSetupHeaderOffset + offsetof(SetupHeader, pref_address) == 0x258);
static_assert(kSetupHeaderOffset + offsetof(SetupHeader, kernel_info_offset) == 0x268);

/// An entry of the zero page's memory map.
struct E820Record {
  std::uint64_t base;
  std::uint64_t size;
  std::uint32_t type;
};
static_assert(sizeof(E820Record) == 20);

/// The zero page (struct boot_params).
struct ZeroPage {
  std::uint8_t unused_0[0x70];
  std::uint64_t acpi_rsdp_addr;
  std::uint8_t unused_1[0x1e8 - 0x78];
  std::uint8_t e820_entries;
  std::uint8_t unused_2[kSetupHeaderOffset - 0x1e9];  // with the sentinel, which must be zero
  SetupHeader hdr;
  std::uint8_t unused_3[0x2d0 - kSetupHeaderOffset - sizeof(SetupHeader)];
  E820Record e820_table[128];
  std::uint8_t unused_4[0x1000 - 0xcd0];
};
static_assert(offsetof(ZeroPage, acpi_rsdp_addr) == 0x70);
static_assert(offsetof(ZeroPage, e820_entries) == 0x1e8);
static_assert(offsetof(ZeroPage, hdr) == kSetupHeaderOffset);
static_assert(offsetof(ZeroPage, e820_table) == 0x2d0);
static_assert(sizeof(ZeroPage) == 4096);

#pragma pack(pop)

}  // namespace holdfast::machine::boot
