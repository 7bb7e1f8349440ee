// SPDX-License-Identifier: Apache-2.0
#include "machine/boot/pvh.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "machine/boot/layout.h"
#include "machine/boot/test_images.h"

namespace holdfast::machine::boot {
namespace {

using ::testing::HasSubstr;
using testing::Image;
using testing::MakeBootFile;
using testing::MakeNote;
using testing::MakePvh;
using testing::PvhSpec;
using testing::TestRam;

constexpr std::uint64_t kRamSize = 32 * kMiB;
const std::string kXen("Xen\0", 4);

std::vector<std::byte> Bytes(std::uint64_t value, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(&value, 1)).first(size);
  return {bytes.begin(), bytes.end()};
}

TEST(Pvh, IsLoadedWithZeroedBssAndStartInfo) {
  const TestRam ram(kRamSize);
  ASSERT_TRUE(ram.space().Fill(GuestAddress(16 * kMiB), kMiB, std::byte{0xee}));
  BootSource source = ram.Source(MakePvh({}));
  source.initrd = MakeBootFile("initrd 'i'", Image(5000, std::byte{0x5a}));
  const auto guest = LoadGuest(ram.space(), source);
  ASSERT_TRUE(guest) << guest.error().ToString();
  EXPECT_EQ(guest->protocol, LoadedGuest::Protocol::kPvh);
  EXPECT_EQ(guest->entry, GuestAddress(16 * kMiB + 0x10));
  EXPECT_FALSE(guest->long_mode);
  EXPECT_EQ(ram.Get<std::uint8_t>(GuestAddress(16 * kMiB + 0xff)), 0xc3);
  EXPECT_EQ(ram.Get<std::uint8_t>(GuestAddress(16 * kMiB + 0x100)), 0);
  EXPECT_EQ(ram.Get<std::uint8_t>(GuestAddress(16 * kMiB + 0x2fff)), 0);
  EXPECT_EQ(ram.Get<std::uint8_t>(GuestAddress(16 * kMiB + 0x3000)), 0xee);

  const auto info = ram.Get<StartInfo>(guest->boot_info);
  EXPECT_EQ(info.magic, 0x336ec578u);
  EXPECT_EQ(info.version, 1u);
  EXPECT_EQ(info.rsdp_paddr, 0xe0000u);
  EXPECT_EQ(ram.GetString(GuestAddress(info.cmdline_paddr)), "console=ttyS0");
  ASSERT_EQ(info.nr_modules, 1u);
  const auto module = ram.Get<StartInfoModule>(GuestAddress(info.modlist_paddr));
  EXPECT_EQ(module.paddr, kRamSize - 2 * kPageSize);
  EXPECT_EQ(module.size, 5000u);
  EXPECT_EQ(ram.Get<std::uint8_t>(GuestAddress(module.paddr + 4999)), 0x5a);
  ASSERT_EQ(info.memmap_entries, 6u);
  const auto memory =
      ram.Get<StartInfoMemory>(GuestAddress(info.memmap_paddr + 3 * sizeof(StartInfoMemory)));
  EXPECT_EQ(memory.addr, kMiB);
  EXPECT_EQ(memory.size, kRamSize - kMiB);
  EXPECT_EQ(memory.type, 1u);
}

TEST(Pvh, HasNoModuleWithoutAnInitrd) {
  const TestRam ram(kRamSize);
  const auto guest = LoadGuest(ram.space(), ram.Source(MakePvh({})));
  ASSERT_TRUE(guest) << guest.error().ToString();
  const auto info = ram.Get<StartInfo>(guest->boot_info);
  EXPECT_EQ(info.nr_modules, 0u);
  EXPECT_EQ(info.modlist_paddr, 0u);
}

TEST(Pvh, FindsItsNoteAmongOthers) {
  const auto entry4 = MakeNote(kXen, 18, Bytes(0x1234, 4), 4);
  const auto other = MakeNote(kXen, 6, Bytes(7, 3), 4);
  const auto gnu = MakeNote(std::string("GNU\0", 4), 18, Bytes(9, 4), 4);
  const auto join = [](std::initializer_list<std::vector<std::byte>> parts) {
    std::vector<std::byte> all;
    for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
  };
  auto cut = entry4;
  cut.pop_back();
  auto huge = entry4;
  huge[4] = huge[5] = huge[6] = huge[7] = std::byte{0xff};  // desc_size
  auto huge_name = entry4;
  huge_name[0] = huge_name[1] = huge_name[2] = huge_name[3] = std::byte{0xff};
  const struct {
    const char* why;
    std::vector<std::byte> notes;
    std::size_t alignment;
    std::optional<std::uint64_t> want;
  } kCases[] = {
      {"4 bytes", entry4, 4, 0x1234},
      {"8 bytes", MakeNote(kXen, 18, Bytes(0x123456789a, 8), 4), 4, 0x123456789a},
      {"padded to 8", MakeNote(kXen, 18, Bytes(0x55, 4), 8), 8, 0x55},
      {"behind others", join({other, gnu, entry4}), 4, 0x1234},
      {"same type, other owner", gnu, 4, std::nullopt},
      {"a descriptor of 2 bytes", MakeNote(kXen, 18, Bytes(1, 2), 4), 4, std::nullopt},
      {"cut off", cut, 4, std::nullopt},
      {"a descriptor of 4 GiB", huge, 4, std::nullopt},
      {"a name of 4 GiB", huge_name, 4, std::nullopt},
      {"nothing", {}, 4, std::nullopt},
      {"a lone header", Bytes(0, 8), 4, std::nullopt},
  };
  for (const auto& c : kCases) EXPECT_EQ(FindPvhEntry(c.notes, c.alignment), c.want) << c.why;
}

TEST(Pvh, TakesNotesOfEitherPaddingInASegmentOfAlignmentEight) {
  for (const std::size_t alignment : {4u, 8u}) {
    SCOPED_TRACE(alignment);
    const TestRam ram(kRamSize);
    PvhSpec spec;
    // A first note that leaves the second at different places with either padding.
    spec.notes = MakeNote(kXen, 6, Bytes(7, 4), alignment);
    const auto entry = MakeNote(kXen, 18, Bytes(16 * kMiB, 4), alignment);
    spec.notes.insert(spec.notes.end(), entry.begin(), entry.end());
    spec.note.filesz = spec.notes.size();
    spec.note.align = 8;
    const auto guest = LoadGuest(ram.space(), ram.Source(MakePvh(spec)));
    ASSERT_TRUE(guest) << guest.error().ToString();
    EXPECT_EQ(guest->entry, GuestAddress(16 * kMiB));
  }
}

TEST(Pvh, SaysWhatIsWrongWithAnElfFile) {
  constexpr std::uint64_t kTop = ~std::uint64_t{0};
  const struct {
    const char* why;
    std::function<void(PvhSpec&)> bend;
    Errc code;
    const char* says;
  } kCases[] = {
      {"another machine", [](auto& s) { s.header.machine = 183; }, Errc::kUnsupported,
       "another kind of machine (number 183)"},
      {"big-endian", [](auto& s) { s.header.byte_order = 2; }, Errc::kUnsupported, "another kind"},
      {"i386", [](auto& s) { s.header.machine = 3; }, Errc::kUnsupported, "32-bit ELF"},
      {"32-bit class", [](auto& s) { s.header.file_class = 1; }, Errc::kUnsupported, "32-bit ELF"},
      {"an object file", [](auto& s) { s.header.type = 1; }, Errc::kUnsupported, "object file"},
      {"no note segment", [](auto& s) { s.note.type = 0; }, Errc::kUnsupported,
       "without a PVH entry"},
      {"no such note", [](auto& s) { s.notes[8] = std::byte{6}; }, Errc::kUnsupported,
       "without a PVH entry"},
      {"no program headers", [](auto& s) { s.header.phnum = 0; }, Errc::kMalformed,
       "0 program headers"},
      {"too many program headers", [](auto& s) { s.header.phnum = 65; }, Errc::kMalformed,
       "65 program headers"},
      {"program headers of another size", [](auto& s) { s.header.phentsize = 32; },
       Errc::kMalformed, "of 32 bytes"},
      {"program headers behind the end", [](auto& s) { s.header.phoff = 0x2f0; }, Errc::kMalformed,
       "ends before its program headers"},
      {"program headers that wrap", [=](auto& s) { s.header.phoff = kTop; }, Errc::kMalformed,
       "ends before its program headers"},
      {"a segment behind the end",
       [](auto& s) {
         s.note.offset = 0x2f8;
         s.notes.clear();
       },
       Errc::kMalformed, "fewer than its segments need"},
      {"a segment whose offset wraps", [](auto& s) { s.note.filesz = kTop - 0x80; },
       Errc::kMalformed, "fewer than its segments need"},
      {"larger in the file than in memory", [](auto& s) { s.load.memsz = 0xff; }, Errc::kMalformed,
       "larger in the file"},
      {"in the first MiB",
       [](auto& s) {
         s.load.paddr = 0x8000;
         s.notes = MakeNote(kXen, 18, Bytes(0x8000, 4), 4);
       },
       Errc::kUnsupported, "first MiB"},
      {"more memory than there is", [](auto& s) { s.load.memsz = 17 * kMiB; },
       Errc::kInvalidArgument, "needs 17 MiB of RAM at 0x1000000"},
      {"memory that wraps", [=](auto& s) { s.load.memsz = kTop; }, Errc::kInvalidArgument,
       "which the guest does not have"},
      {"in the hole",
       [](auto& s) {
         s.load.paddr = 3 * kGiB;
         s.notes = MakeNote(kXen, 18, Bytes(3 * kGiB, 4), 4);
       },
       Errc::kMalformed, "in none of its segments"},
      {"an entry behind its segment",
       [](auto& s) { s.notes = MakeNote(kXen, 18, Bytes(16 * kMiB + 0x100, 4), 4); },
       Errc::kMalformed, "0x1000100 is in none of its segments"},
      {"an entry beyond 32 bits",
       [](auto& s) {
         s.notes = MakeNote(kXen, 18, Bytes(kTop, 8), 4);
         s.note.filesz = s.notes.size();
       },
       Errc::kMalformed, "in none of its segments"},
  };
  const TestRam ram(kRamSize);
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    PvhSpec spec;
    c.bend(spec);
    const auto guest = LoadGuest(ram.space(), ram.Source(MakePvh(spec)));
    ASSERT_FALSE(guest);
    EXPECT_EQ(guest.error().code(), c.code);
    EXPECT_THAT(guest.error().message(), HasSubstr(c.says));
    EXPECT_THAT(guest.error().message(), HasSubstr("kernel 'test'"));
    EXPECT_FALSE(guest.error().hint().empty());
  }
}

TEST(Pvh, RefusesTruncationAtEveryLength) {
  const TestRam ram(kRamSize);
  const Image image = MakePvh({});
  for (std::size_t length = 0; length < image.size(); ++length) {
    const auto guest = LoadGuest(ram.space(), ram.Source(std::span(image).first(length)));
    ASSERT_FALSE(guest) << length;
    ASSERT_EQ(guest.error().code(), Errc::kMalformed) << length;
    ASSERT_FALSE(guest.error().hint().empty()) << length;
  }
}

TEST(Pvh, RefusesAnOversizedNoteSegmentWithoutReadingIt) {
  const TestRam ram(kRamSize);
  PvhSpec spec;
  spec.load.filesz = 128 * kKiB;
  spec.load.memsz = 128 * kKiB;
  spec.note.filesz = 65 * kKiB;
  const auto guest = LoadGuest(ram.space(), ram.Source(MakePvh(spec)));
  ASSERT_FALSE(guest);
  EXPECT_THAT(guest.error().message(), HasSubstr("a note segment of 65 KiB"));
}

TEST(Pvh, RefusesAnInitrdThatWouldMeetTheKernel) {
  const TestRam ram(kRamSize);
  PvhSpec spec;
  spec.load.memsz = 16 * kMiB - kPageSize;  // leaves one page above
  BootSource source = ram.Source(MakePvh(spec));
  source.initrd = MakeBootFile("initrd 'i'", Image(kPageSize));
  EXPECT_TRUE(LoadGuest(ram.space(), source));
  source.initrd = MakeBootFile("initrd 'i'", Image(kPageSize + 1));
  const auto guest = LoadGuest(ram.space(), source);
  ASSERT_FALSE(guest);
  EXPECT_THAT(guest.error().message(), HasSubstr("does not fit"));
}

TEST(Pvh, RefusesACommandLineLongerThanItsPlace) {
  const TestRam ram(kRamSize);
  BootSource source = ram.Source(MakePvh({}));
  source.cmdline = std::string(kCmdline.size - 1, 'a');
  EXPECT_TRUE(LoadGuest(ram.space(), source));
  source.cmdline += 'a';
  const auto guest = LoadGuest(ram.space(), source);
  ASSERT_FALSE(guest);
  EXPECT_THAT(guest.error().message(), HasSubstr("takes at most 65535"));
}

}  // namespace
}  // namespace holdfast::machine::boot
