// SPDX-License-Identifier: Apache-2.0
#include "machine/boot/test_images.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "machine/boot/ram_layout.h"

namespace holdfast::machine::boot::testing {
namespace {

template <typename T>
void Put(Image& image, std::size_t offset, const T& value) {
  if (image.size() < offset + sizeof value) image.resize(offset + sizeof value);
  std::memcpy(image.data() + offset, &value, sizeof value);
}

constexpr std::uint64_t kLoadAddress = 16 * kMiB;
constexpr std::byte kReturnInstruction{0xc3};

}  // namespace

BzImageSpec::BzImageSpec() : header{} {
  header.setup_sects = 1;
  header.syssize = static_cast<std::uint32_t>(payload_size / 16);
  header.boot_flag = kBootFlag;
  header.jump_opcode = 0xeb;
  header.jump_distance = 0x6a;  // to 0x26c, behind kernel_info_offset
  header.header = kHeaderMagic;
  header.version = 0x020f;
  header.loadflags = kLoadedHigh;
  header.initrd_addr_max = 0x7fffffff;
  header.kernel_alignment = 2 * kMiB;
  header.relocatable_kernel = 1;
  header.xloadflags = kKernel64 | kCanBeLoadedAbove4G;
  header.cmdline_size = 2047;
  header.pref_address = kLoadAddress;
  header.init_size = kMiB;
}

Image MakeBzImage(const BzImageSpec& spec) {
  Image image(kSetupHeaderOffset);
  Put(image, kSetupHeaderOffset, spec.header);
  const std::size_t sectors = spec.header.setup_sects == 0 ? 4 : spec.header.setup_sects;
  image.resize(std::max(image.size(), (sectors + 1) * 512));
  image.resize(image.size() + spec.payload_size, kReturnInstruction);
  return image;
}

PvhSpec::PvhSpec() : header{}, load{}, note{} {
  const std::uint32_t entry = kLoadAddress + 0x10;
  notes = MakeNote(std::string("Xen\0", 4), kXenNotePhys32Entry,
                   std::as_bytes(std::span(&entry, 1)), 4);
  header.magic[0] = 0x7f;
  header.magic[1] = 'E';
  header.magic[2] = 'L';
  header.magic[3] = 'F';
  header.file_class = kElfClass64;
  header.byte_order = kElfLittleEndian;
  header.ident_version = 1;
  header.type = kElfExecutable;
  header.machine = kElfMachineX8664;
  header.version = 1;
  header.entry = kLoadAddress;
  header.phoff = sizeof(ElfHeader);
  header.ehsize = sizeof(ElfHeader);
  header.phentsize = sizeof(ProgramHeader);
  header.phnum = 2;
  load.type = kSegmentLoad;
  load.offset = 0x200;
  load.paddr = kLoadAddress;
  load.filesz = 0x100;
  load.memsz = 0x3000;
  load.align = kPageSize;
  note.type = kSegmentNote;
  note.offset = 0x100;
  note.filesz = notes.size();
  note.memsz = notes.size();
  note.align = 4;
}

Image MakePvh(const PvhSpec& spec) {
  Image image(spec.load.offset + spec.load.filesz, kReturnInstruction);
  Put(image, 0, spec.header);
  Put(image, sizeof(ElfHeader), spec.load);
  Put(image, sizeof(ElfHeader) + sizeof(ProgramHeader), spec.note);
  std::ranges::copy(spec.notes, image.begin() + static_cast<std::ptrdiff_t>(spec.note.offset));
  return image;
}

std::vector<std::byte> MakeNote(const std::string& name, std::uint32_t type,
                                std::span<const std::byte> desc, std::size_t alignment) {
  std::vector<std::byte> note;
  Put(note, 0,
      NoteHeader{static_cast<std::uint32_t>(name.size()), static_cast<std::uint32_t>(desc.size()),
                 type});
  const auto text = std::as_bytes(std::span(name));
  note.insert(note.end(), text.begin(), text.end());
  note.resize(AlignUp(note.size(), alignment));
  note.insert(note.end(), desc.begin(), desc.end());
  note.resize(AlignUp(note.size(), alignment));
  return note;
}

BootFile MakeBootFile(const std::string& name, std::span<const std::byte> bytes) {
  BootFile file;
  file.fd = UniqueFd(::memfd_create("boot file", MFD_CLOEXEC));
  file.name = name;
  file.size = bytes.size();
  if (!file.fd ||
      ::pwrite(file.fd.get(), bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size()))
    std::abort();  // a machine without memory to test on
  return file;
}

TestRam::TestRam(std::uint64_t size) : space_(nullptr) {
  auto plan = PlanRam(size, 48);
  auto block = RamBlock::CreateMemfd("test.ram", size);
  if (!plan || !block) std::abort();
  block_ = *std::move(block);
  for (const RamRange& range : *plan)
    if (!space_.AddRam(range.base, range.size, *block_, range.ram_offset)) std::abort();
  map_ = BuildMemoryMap(*plan);
}

BootSource TestRam::Source(std::span<const std::byte> kernel) const {
  BootSource source;
  source.kernel = MakeBootFile("kernel 'test'", kernel);
  source.cmdline = "console=ttyS0";
  source.memory_map = map_;
  source.rsdp = GuestAddress(0xe0000);
  return source;
}

std::string TestRam::GetString(GuestAddress address) const {
  std::string text;
  for (char c = Get<char>(address); c != '\0'; c = Get<char>(address + text.size()))
    text.push_back(c);
  return text;
}

}  // namespace holdfast::machine::boot::testing
