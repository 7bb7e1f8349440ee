// SPDX-License-Identifier: Apache-2.0
#include "machine/boot/bzimage.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>

#include <fmt/format.h>

#include <holdfast/units.h>

#include "machine/boot/layout.h"
#include "machine/boot/linux_params.h"
#include "machine/boot/placement.h"

namespace holdfast::machine::boot {
namespace {

constexpr std::size_t kHeaderLengthBase = 0x202;  // jump_distance counts from here
constexpr std::size_t kHeaderEnd212 = 0x268;      // of protocol 2.12
constexpr std::size_t kHeaderEndMax = 0x290;      // where the zero page goes on with other things
constexpr std::uint16_t kMinVersion = 0x020c;
constexpr std::uint64_t kSectorSize = 512;
constexpr std::uint64_t kEntryOffset = 0x200;  // of the 64-bit entry in the protected-mode part

/// A bzImage whose header has been checked.
struct Image {
  SetupHeader header{};
  std::size_t header_end = 0;        // in the file
  std::uint64_t payload_offset = 0;  // of the protected-mode part in the file
  std::uint64_t payload_size = 0;
  std::uint64_t memory_size = 0;  // what the kernel needs from its load address up
};

tl::unexpected<Error> Truncated(const BootFile& kernel, std::uint64_t promised) {
  return Fail(Errc::kMalformed,
              fmt::format("{} is truncated: it has {} bytes, its header promises {}", kernel.name,
                          kernel.size, promised),
              "Copy or build it again.");
}

/// Where the certificate table of a signed kernel's PE header ends in the file, 0 without one.
/// Spec: Microsoft PE format, "Optional Header Data Directories".
std::uint64_t SignatureEnd(std::span<const std::byte> head) {
  constexpr std::size_t kPeOffsetField = 0x3c;
  constexpr std::size_t kOptionalHeader = 24;         // from the PE signature
  constexpr std::size_t kDirectoryCountField = 108;   // from the optional header (PE32+)
  constexpr std::size_t kCertificateEntry = 144;      // the fifth directory
  constexpr std::uint32_t kPeSignature = 0x00004550;  // "PE"
  constexpr std::uint16_t kPe32Plus = 0x20b;
  const auto read32 = [head](std::size_t offset) {
    std::uint32_t value = 0;
    std::memcpy(&value, head.data() + offset, sizeof value);
    return value;
  };
  const std::size_t pe = read32(kPeOffsetField);
  const std::size_t optional = pe + kOptionalHeader;
  if (!RangeFits(optional, kCertificateEntry + 8, head.size()) || read32(pe) != kPeSignature ||
      (read32(optional) & 0xffff) != kPe32Plus || read32(optional + kDirectoryCountField) < 5)
    return 0;
  // Alone among the directories this one holds a file offset.
  return std::uint64_t{read32(optional + kCertificateEntry)} +
         read32(optional + kCertificateEntry + 4);
}

Result<Image> ReadHeader(const BootFile& kernel, std::span<const std::byte> head) {
  Image image;
  if (head.size() < kHeaderEnd212) return Truncated(kernel, kHeaderEnd212);
  const std::size_t available = std::min(head.size() - kSetupHeaderOffset, sizeof(SetupHeader));
  std::memcpy(&image.header, head.data() + kSetupHeaderOffset, available);
  const SetupHeader& header = image.header;

  if (header.boot_flag != kBootFlag)
    return Fail(Errc::kMalformed,
                fmt::format("{} has a broken boot header (no 0xaa55 at 0x1fe)", kernel.name),
                kAcceptedFormats);
  if (header.version < kMinVersion)
    return Fail(Errc::kUnsupported,
                fmt::format("{} has boot protocol {}.{:02}; 2.12 (Linux 3.8) is needed",
                            kernel.name, header.version >> 8, header.version & 0xff),
                kAcceptedFormats);
  if ((header.loadflags & kLoadedHigh) == 0)
    return Fail(Errc::kUnsupported, fmt::format("{} is a zImage, not a bzImage", kernel.name),
                kAcceptedFormats);
  if ((header.xloadflags & kKernel64) == 0)
    return Fail(Errc::kUnsupported,
                fmt::format("{} is a 32-bit kernel: it has no 64-bit entry", kernel.name),
                kAcceptedFormats);

  image.header_end = kHeaderLengthBase + header.jump_distance;
  if (image.header_end < kHeaderEnd212)
    return Fail(Errc::kMalformed,
                fmt::format("{} has a boot header of {:#x} bytes, too short for its protocol",
                            kernel.name, image.header_end),
                kAcceptedFormats);
  if (head.size() < image.header_end) return Truncated(kernel, image.header_end);
  image.header_end = std::min(image.header_end, kHeaderEndMax);

  // A setup_sects of 0 means 4; the boot sector itself comes on top.
  const std::uint64_t sectors = header.setup_sects == 0 ? 4 : header.setup_sects;
  image.payload_offset = (sectors + 1) * kSectorSize;
  // What lies behind these is a signature for Secure Boot and its padding: not loaded, but where
  // the file's PE header tells of it, it has to be there.
  image.payload_size = std::uint64_t{header.syssize} * 16;
  const std::uint64_t promised =
      std::max(image.payload_offset + image.payload_size, SignatureEnd(head));
  if (kernel.size < promised) return Truncated(kernel, promised);
  if (image.payload_size <= kEntryOffset)
    return Fail(Errc::kMalformed,
                fmt::format("{} is a boot header without a kernel behind it", kernel.name),
                "Copy or build it again.");
  image.memory_size = std::max<std::uint64_t>(header.init_size, image.payload_size);
  return image;
}

// The kernel's own preference is the one address that always works: a relocatable kernel loaded
// lower moves itself up to it, one that is not relocatable has to be there.
Result<const MemoryMapEntry*> FindPlace(const BootSource& source, const Image& image) {
  const std::uint64_t base = image.header.pref_address;
  const std::uint32_t alignment = image.header.kernel_alignment;
  if (base < kHighMemoryStart || base >= 4 * kGiB ||
      (image.header.relocatable_kernel != 0 &&
       (!std::has_single_bit(alignment) || base % alignment != 0)))
    return Fail(
        Errc::kMalformed,
        fmt::format("{} asks for the impossible load address {:#x}", source.kernel.name, base),
        "Copy or build it again.");
  const MemoryMapEntry* area = FindRam(source.memory_map, base, image.memory_size);
  if (area == nullptr)
    return Fail(Errc::kInvalidArgument,
                fmt::format("{} needs RAM up to {}, more than the guest has there",
                            source.kernel.name, FormatSize(base + image.memory_size)),
                "Give the guest more RAM (-m).");
  return area;
}

Status WriteZeroPage(const AddressSpace& ram, const BootSource& source, const Image& image,
                     std::span<const std::byte> head, GuestAddress initrd) {
  ZeroPage page{};
  if (source.memory_map.size() > std::size(page.e820_table))
    return Fail(Errc::kInvalidArgument, "the memory map has too many entries for the zero page");
  // The header is taken over as it stands, newer fields included, then filled in.
  std::memcpy(std::as_writable_bytes(std::span(&page, 1)).data() + kSetupHeaderOffset,
              head.data() + kSetupHeaderOffset, image.header_end - kSetupHeaderOffset);
  page.hdr.type_of_loader = kLoaderUnassigned;
  page.hdr.vid_mode = kVideoModeNormal;
  page.hdr.cmd_line_ptr = static_cast<std::uint32_t>(kCmdline.base.value());
  page.hdr.setup_data = 0;
  page.hdr.ramdisk_image = static_cast<std::uint32_t>(initrd.value());
  page.hdr.ramdisk_size = source.initrd ? static_cast<std::uint32_t>(source.initrd->size) : 0;
  page.acpi_rsdp_addr = source.rsdp.value();
  for (std::size_t i = 0; i < source.memory_map.size(); ++i) {
    const MemoryMapEntry& entry = source.memory_map[i];
    page.e820_table[i] = {entry.base.value(), entry.size, static_cast<std::uint32_t>(entry.type)};
  }
  page.e820_entries = static_cast<std::uint8_t>(source.memory_map.size());
  return ram.Write(kZeroPage.base, std::as_bytes(std::span(&page, 1)));
}

}  // namespace

bool LooksLikeBzImage(std::span<const std::byte> head) noexcept {
  if (head.size() < kMinBzImageHead) return false;
  std::uint32_t magic = 0;
  std::memcpy(&magic, head.data() + kSetupHeaderOffset + offsetof(SetupHeader, header),
              sizeof magic);
  return magic == kHeaderMagic;
}

Result<LoadedGuest> LoadBzImage(const AddressSpace& ram, const BootSource& source,
                                std::span<const std::byte> head) {
  HF_TRY(const Image image, ReadHeader(source.kernel, head));
  HF_TRY(const MemoryMapEntry* const area, FindPlace(source, image));
  const GuestAddress base(image.header.pref_address);

  HF_TRY_STATUS(WriteCmdline(ram, source, image.header.cmdline_size));
  HF_TRY_STATUS(LoadPart(ram, source.kernel, image.payload_offset, base, image.payload_size));
  GuestAddress initrd;
  if (source.initrd) {
    // initrd_addr_max is the highest address, not the end; a kernel that may lie above 4 GiB
    // takes an initrd anywhere in the 32 bits of ramdisk_image, whatever it says there.
    const std::uint64_t max_end = (image.header.xloadflags & kCanBeLoadedAbove4G) != 0
                                      ? 4 * kGiB
                                      : std::uint64_t{image.header.initrd_addr_max} + 1;
    HF_TRY(initrd,
           LoadInitrd(ram, *source.initrd, *area, base.value() + image.memory_size, max_end));
  }
  HF_TRY_STATUS(WriteZeroPage(ram, source, image, head, initrd));
  HF_TRY(const LongModeTables tables, WriteLongModeTables(ram));
  return LoadedGuest{LoadedGuest::Protocol::kLinux64, base + kEntryOffset, kZeroPage.base, tables};
}

}  // namespace holdfast::machine::boot
