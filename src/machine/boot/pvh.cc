// SPDX-License-Identifier: Apache-2.0
#include "machine/boot/pvh.h"

#include <algorithm>
#include <cstring>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include <holdfast/units.h>

#include "machine/boot/layout.h"
#include "machine/boot/placement.h"
#include "machine/boot/pvh_abi.h"

namespace holdfast::machine::boot {
namespace {

constexpr std::size_t kMaxProgramHeaders = 64;  // a vmlinux has about five
constexpr std::uint64_t kMaxNoteSize = 64 * kKiB;
constexpr std::string_view kXenNoteName("Xen\0", 4);
constexpr char kCopyAgain[] = "Copy or build it again.";
constexpr char kNeedsPvh[] =
    "Build the kernel with CONFIG_PVH=y, or give its bzImage (arch/x86/boot/bzImage).";

template <typename T>
T Load(std::span<const std::byte> from, std::size_t offset) {
  T value;
  std::memcpy(&value, from.data() + offset, sizeof value);
  return value;
}

tl::unexpected<Error> Malformed(const BootFile& kernel, std::string_view what) {
  return Fail(Errc::kMalformed, fmt::format("{} is a broken ELF file: {}", kernel.name, what),
              kCopyAgain);
}

Result<ElfHeader> ReadHeader(const BootFile& kernel, std::span<const std::byte> head) {
  if (head.size() < sizeof(ElfHeader))
    return Malformed(kernel, fmt::format("it ends after {} bytes", head.size()));
  const auto header = Load<ElfHeader>(head, 0);
  if (header.byte_order != kElfLittleEndian ||
      (header.machine != kElfMachineX8664 && header.machine != kElfMachineX86))
    return Fail(Errc::kUnsupported,
                fmt::format("{} is an ELF file for another kind of machine (number {}), not x86",
                            kernel.name, header.machine),
                kAcceptedFormats);
  if (header.file_class != kElfClass64 || header.machine != kElfMachineX8664)
    return Fail(Errc::kUnsupported,
                fmt::format("{} is a 32-bit ELF file; a 64-bit x86 one is needed", kernel.name),
                kAcceptedFormats);
  if (header.type != kElfExecutable && header.type != kElfShared)
    return Fail(Errc::kUnsupported,
                fmt::format("{} is an ELF object file, not an executable", kernel.name),
                kAcceptedFormats);
  if (header.phnum == 0 || header.phnum > kMaxProgramHeaders ||
      header.phentsize != sizeof(ProgramHeader))
    return Malformed(
        kernel, fmt::format("{} program headers of {} bytes (1 to {} of {} expected)", header.phnum,
                            header.phentsize, kMaxProgramHeaders, sizeof(ProgramHeader)));
  return header;
}

Result<std::vector<ProgramHeader>> ReadProgramHeaders(const BootFile& kernel,
                                                      const ElfHeader& header) {
  std::vector<ProgramHeader> segments(header.phnum);
  const auto bytes = std::as_writable_bytes(std::span(segments));
  if (!RangeFits(header.phoff, bytes.size(), kernel.size))
    return Malformed(kernel, "it ends before its program headers do");
  HF_TRY(const std::size_t length, ReadSome(kernel, header.phoff, bytes));
  if (length != bytes.size()) return Malformed(kernel, "it became shorter while it was read");
  for (const ProgramHeader& segment : segments) {
    if (segment.type != kSegmentLoad && segment.type != kSegmentNote) continue;
    if (!RangeFits(segment.offset, segment.filesz, kernel.size))
      return Malformed(kernel,
                       fmt::format("it has {} bytes, fewer than its segments need", kernel.size));
    if (segment.type == kSegmentLoad && segment.filesz > segment.memsz)
      return Malformed(kernel, "a segment is larger in the file than in memory");
  }
  return segments;
}

Result<std::uint64_t> FindEntry(const BootFile& kernel, std::span<const ProgramHeader> segments) {
  std::vector<std::byte> notes;
  for (const ProgramHeader& segment : segments) {
    if (segment.type != kSegmentNote) continue;
    if (segment.filesz > kMaxNoteSize)
      return Malformed(kernel, fmt::format("a note segment of {}", FormatSize(segment.filesz)));
    notes.resize(segment.filesz);
    HF_TRY(const std::size_t length, ReadSome(kernel, segment.offset, notes));
    notes.resize(length);
    // Segments of alignment 8 exist with either padding: the gABI says 8, most tools write 4.
    auto entry = segment.align == 8 ? FindPvhEntry(notes, 8) : std::nullopt;
    if (!entry) entry = FindPvhEntry(notes, 4);
    if (entry) return *entry;
  }
  return Fail(
      Errc::kUnsupported,
      fmt::format("{} is an ELF file without a PVH entry (XEN_ELFNOTE_PHYS32_ENTRY)", kernel.name),
      kNeedsPvh);
}

Status LoadSegments(const AddressSpace& ram, const BootSource& source,
                    std::span<const ProgramHeader> segments) {
  for (const ProgramHeader& segment : segments) {
    if (segment.type != kSegmentLoad || segment.memsz == 0) continue;
    if (segment.paddr < kHighMemoryStart)
      return Fail(Errc::kUnsupported,
                  fmt::format("{} wants to be loaded at {:#x}, in the PC's first MiB",
                              source.kernel.name, segment.paddr),
                  "Link it to a physical address from 0x100000 up.");
    // FindRam also answers for ranges that wrap.
    if (FindRam(source.memory_map, segment.paddr, segment.memsz) == nullptr)
      return Fail(Errc::kInvalidArgument,
                  fmt::format("{} needs {} of RAM at {:#x}, which the guest does not have",
                              source.kernel.name, FormatSize(segment.memsz), segment.paddr),
                  "Give the guest more RAM (-m).");
    const GuestAddress base(segment.paddr);
    HF_TRY_STATUS(LoadPart(ram, source.kernel, segment.offset, base, segment.filesz));
    HF_TRY_STATUS(ram.Fill(base + segment.filesz, segment.memsz - segment.filesz, std::byte{0}));
  }
  return {};
}

/// One past the last byte that loaded segments have in `area`.
std::uint64_t EndOfKernel(const MemoryMapEntry& area, std::span<const ProgramHeader> segments) {
  std::uint64_t end = area.base.value();
  for (const ProgramHeader& segment : segments)
    if (segment.type == kSegmentLoad && segment.memsz > 0 && segment.paddr < area.end())
      end = std::max(end, segment.paddr + segment.memsz);
  return end;
}

/// The area that holds the entry; checks that the entry is in a segment.
Result<const MemoryMapEntry*> FindEntryArea(const BootSource& source,
                                            std::span<const ProgramHeader> segments,
                                            std::uint64_t entry) {
  const bool loaded = std::ranges::any_of(segments, [entry](const ProgramHeader& segment) {
    return segment.type == kSegmentLoad && entry >= segment.paddr &&
           entry - segment.paddr < segment.filesz;
  });
  const MemoryMapEntry* area = FindRam(source.memory_map, entry, 1);
  if (!loaded || entry >= 4 * kGiB || area == nullptr)
    return Malformed(source.kernel,
                     fmt::format("its PVH entry {:#x} is in none of its segments", entry));
  return area;
}

Status WriteStartInfo(const AddressSpace& ram, const BootSource& source, GuestAddress initrd) {
  // One page: the structure, then the only module, then the memory map.
  constexpr std::uint64_t kModuleOffset = sizeof(StartInfo);
  constexpr std::uint64_t kMapOffset = kModuleOffset + sizeof(StartInfoModule);
  std::vector<StartInfoMemory> map;
  map.reserve(source.memory_map.size());
  for (const MemoryMapEntry& entry : source.memory_map)
    map.push_back({entry.base.value(), entry.size, static_cast<std::uint32_t>(entry.type), 0});
  if (kMapOffset + map.size() * sizeof(StartInfoMemory) > kStartInfo.size)
    return Fail(Errc::kInvalidArgument, "the memory map has too many entries for PVH");

  StartInfo info{};
  info.magic = kStartInfoMagic;
  info.version = kStartInfoVersion;
  info.cmdline_paddr = kCmdline.base.value();
  info.rsdp_paddr = source.rsdp.value();
  info.memmap_paddr = kStartInfo.base.value() + kMapOffset;
  info.memmap_entries = static_cast<std::uint32_t>(map.size());
  StartInfoModule module{};
  if (source.initrd) {
    info.nr_modules = 1;
    info.modlist_paddr = kStartInfo.base.value() + kModuleOffset;
    module.paddr = initrd.value();
    module.size = source.initrd->size;
  }
  HF_TRY_STATUS(ram.Write(kStartInfo.base, std::as_bytes(std::span(&info, 1))));
  HF_TRY_STATUS(ram.Write(kStartInfo.base + kModuleOffset, std::as_bytes(std::span(&module, 1))));
  return ram.Write(kStartInfo.base + kMapOffset, std::as_bytes(std::span(map)));
}

}  // namespace

bool LooksLikeElf(std::span<const std::byte> head) noexcept {
  constexpr std::string_view kMagic =
      "\x7f"
      "ELF";
  return head.size() >= kMagic.size() && std::memcmp(head.data(), kMagic.data(), 4) == 0;
}

std::optional<std::uint64_t> FindPvhEntry(std::span<const std::byte> notes, std::size_t alignment) {
  std::uint64_t offset = 0;
  while (RangeFits(offset, sizeof(NoteHeader), notes.size())) {
    const auto note = Load<NoteHeader>(notes, offset);
    // Sizes are 32 bits and offsets at most kMaxNoteSize here, so none of these sums wraps.
    const std::uint64_t name = offset + sizeof(NoteHeader);
    const std::uint64_t desc = AlignUp(name + note.name_size, alignment);
    if (!RangeFits(name, note.name_size, notes.size()) ||
        !RangeFits(desc, note.desc_size, notes.size()))
      return std::nullopt;
    const bool is_xen =
        note.name_size == kXenNoteName.size() &&
        std::memcmp(notes.data() + name, kXenNoteName.data(), kXenNoteName.size()) == 0;
    if (is_xen && note.type == kXenNotePhys32Entry) {
      if (note.desc_size == 4) return Load<std::uint32_t>(notes, desc);
      if (note.desc_size == 8) return Load<std::uint64_t>(notes, desc);
      return std::nullopt;
    }
    offset = AlignUp(desc + note.desc_size, alignment);
  }
  return std::nullopt;
}

Result<LoadedGuest> LoadPvh(const AddressSpace& ram, const BootSource& source,
                            std::span<const std::byte> head) {
  HF_TRY(const ElfHeader header, ReadHeader(source.kernel, head));
  HF_TRY(const auto segments, ReadProgramHeaders(source.kernel, header));
  HF_TRY(const std::uint64_t entry, FindEntry(source.kernel, segments));
  HF_TRY(const MemoryMapEntry* const area, FindEntryArea(source, segments, entry));
  HF_TRY_STATUS(WriteCmdline(ram, source, kCmdline.size - 1));
  HF_TRY_STATUS(LoadSegments(ram, source, segments));
  GuestAddress initrd;
  if (source.initrd) {
    const std::uint64_t from = EndOfKernel(*area, segments);
    HF_TRY(initrd, LoadInitrd(ram, *source.initrd, *area, from, 4 * kGiB));
  }
  HF_TRY_STATUS(WriteStartInfo(ram, source, initrd));
  return LoadedGuest{LoadedGuest::Protocol::kPvh, GuestAddress(entry), kStartInfo.base, {}};
}

}  // namespace holdfast::machine::boot
