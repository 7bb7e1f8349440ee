// SPDX-License-Identifier: Apache-2.0
#include "machine/boot/bzimage.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>

#include "machine/boot/layout.h"
#include "machine/boot/test_images.h"

namespace holdfast::machine::boot {
namespace {

using testing::BzImageSpec;
using ::testing::HasSubstr;
using testing::Image;
using testing::MakeBootFile;
using testing::MakeBzImage;
using testing::TestRam;

constexpr std::uint64_t kRamSize = 32 * kMiB;

TEST(BzImage, IsLoadedWhereItWantsWithAFilledZeroPage) {
  const TestRam ram(kRamSize);
  const BzImageSpec spec;
  const auto guest = LoadGuest(ram.space(), ram.Source(MakeBzImage(spec)));
  ASSERT_TRUE(guest) << guest.error().ToString();
  EXPECT_EQ(guest->protocol, LoadedGuest::Protocol::kLinux64);
  EXPECT_EQ(guest->entry, GuestAddress(16 * kMiB + 0x200));
  EXPECT_EQ(guest->boot_info, kZeroPage.base);
  ASSERT_TRUE(guest->long_mode);
  EXPECT_EQ(ram.Get<std::uint8_t>(GuestAddress(16 * kMiB)), 0xc3);
  EXPECT_EQ(ram.Get<std::uint8_t>(GuestAddress(16 * kMiB + spec.payload_size - 1)), 0xc3);
  EXPECT_EQ(ram.Get<std::uint8_t>(GuestAddress(16 * kMiB + spec.payload_size)), 0);

  const auto page = ram.Get<ZeroPage>(guest->boot_info);
  EXPECT_EQ(std::uint32_t{page.hdr.header}, kHeaderMagic);
  EXPECT_EQ(std::uint16_t{page.hdr.version}, 0x020f);
  EXPECT_EQ(page.hdr.type_of_loader, 0xff);
  EXPECT_EQ(std::uint32_t{page.hdr.init_size}, kMiB);
  EXPECT_EQ(std::uint64_t{page.acpi_rsdp_addr}, 0xe0000u);
  EXPECT_EQ(ram.GetString(GuestAddress(std::uint32_t{page.hdr.cmd_line_ptr})), "console=ttyS0");
  EXPECT_EQ(std::uint32_t{page.hdr.ramdisk_size}, 0u);
  ASSERT_EQ(page.e820_entries, 6);
  EXPECT_EQ(std::uint64_t{page.e820_table[3].base}, kMiB);
  EXPECT_EQ(std::uint64_t{page.e820_table[3].size}, kRamSize - kMiB);
  EXPECT_EQ(std::uint32_t{page.e820_table[3].type}, 1u);
}

TEST(BzImage, TakesNoLeftoversFromTheFileIntoTheRestOfTheZeroPage) {
  const TestRam ram(kRamSize);
  Image image = MakeBzImage({});
  std::fill(image.begin(), image.begin() + 0x1f1, std::byte{0xaa});
  std::fill(image.begin() + 0x26c, image.begin() + 0x400, std::byte{0xaa});
  const auto guest = LoadGuest(ram.space(), ram.Source(image));
  ASSERT_TRUE(guest) << guest.error().ToString();
  const auto page = ram.Get<ZeroPage>(guest->boot_info);
  EXPECT_EQ(std::ranges::count(page.unused_0, 0xaa), 0);
  EXPECT_EQ(std::ranges::count(page.unused_2, 0xaa), 0);
  EXPECT_EQ(std::ranges::count(page.unused_3, 0xaa), 0);
}

TEST(BzImage, PutsTheInitrdAsHighAsItMay) {
  const struct {
    const char* why;
    std::uint64_t initrd_size;
    std::uint16_t xloadflags;
    std::uint32_t initrd_addr_max;
    std::uint64_t want;
  } kCases[] = {
      {"at the end of RAM", 5000, kKernel64, 0x7fffffff, kRamSize - 2 * kPageSize},
      {"below what the kernel reaches", 4096, kKernel64, 0x11fffff, 0x11ff000},
      {"a kernel that ignores its limit", 4096, kKernel64 | kCanBeLoadedAbove4G, 0x11fffff,
       kRamSize - kPageSize},
      {"right behind the kernel", 15 * kMiB, kKernel64, 0x7fffffff, 17 * kMiB},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    const TestRam ram(kRamSize);
    BzImageSpec spec;
    spec.header.xloadflags = c.xloadflags;
    spec.header.initrd_addr_max = c.initrd_addr_max;
    BootSource source = ram.Source(MakeBzImage(spec));
    source.initrd = MakeBootFile("initrd 'i'", Image(c.initrd_size, std::byte{0x5a}));
    const auto guest = LoadGuest(ram.space(), source);
    ASSERT_TRUE(guest) << guest.error().ToString();
    const auto page = ram.Get<ZeroPage>(guest->boot_info);
    EXPECT_EQ(std::uint32_t{page.hdr.ramdisk_image}, c.want);
    EXPECT_EQ(std::uint32_t{page.hdr.ramdisk_size}, c.initrd_size);
    EXPECT_EQ(ram.Get<std::uint8_t>(GuestAddress(c.want)), 0x5a);
    EXPECT_EQ(ram.Get<std::uint8_t>(GuestAddress(c.want + c.initrd_size - 1)), 0x5a);
  }
}

TEST(BzImage, KeepsTheInitrdBelowTheHole) {
  const TestRam ram(6 * kGiB);
  BootSource source = ram.Source(MakeBzImage({}));
  source.initrd = MakeBootFile("initrd 'i'", Image(4096));
  const auto guest = LoadGuest(ram.space(), source);
  ASSERT_TRUE(guest) << guest.error().ToString();
  const auto page = ram.Get<ZeroPage>(guest->boot_info);
  EXPECT_EQ(std::uint32_t{page.hdr.ramdisk_image}, 2 * kGiB - kPageSize);
}

TEST(BzImage, SaysWhatIsWrongWithAHeader) {
  const struct {
    const char* why;
    std::function<void(BzImageSpec&)> bend;
    Errc code;
    const char* says;
  } kCases[] = {
      {"no boot flag", [](auto& s) { s.header.boot_flag = 0; }, Errc::kMalformed, "0xaa55"},
      {"old protocol", [](auto& s) { s.header.version = 0x0209; }, Errc::kUnsupported, "2.09"},
      {"zImage", [](auto& s) { s.header.loadflags = 0; }, Errc::kUnsupported, "zImage"},
      {"32-bit", [](auto& s) { s.header.xloadflags = 0; }, Errc::kUnsupported, "32-bit"},
      {"short header", [](auto& s) { s.header.jump_distance = 0x40; }, Errc::kMalformed,
       "too short"},
      {"truncated", [](auto& s) { s.payload_size -= 16; }, Errc::kMalformed,
       "has 5104 bytes, its header promises 5120"},
      {"setup_sects 0 means 4",
       [](auto& s) {
         s.header.setup_sects = 0;
         s.payload_size = 16;
       },
       Errc::kMalformed, "its header promises 6656"},
      {"an immense payload", [](auto& s) { s.header.syssize = 0xffffffff; }, Errc::kMalformed,
       "truncated"},
      {"no payload", [](auto& s) { s.header.syssize = 0; }, Errc::kMalformed, "without a kernel"},
      {"entry not in the payload", [](auto& s) { s.header.syssize = 0x20; }, Errc::kMalformed,
       "without a kernel"},
      {"address 0", [](auto& s) { s.header.pref_address = 0; }, Errc::kMalformed, "address 0x0"},
      {"address beyond 4 GiB", [](auto& s) { s.header.pref_address = 4 * kGiB; }, Errc::kMalformed,
       "0x100000000"},
      {"the highest address", [](auto& s) { s.header.pref_address = ~std::uint64_t{0}; },
       Errc::kMalformed, "impossible"},
      {"unaligned address", [](auto& s) { s.header.pref_address += kPageSize; }, Errc::kMalformed,
       "0x1001000"},
      {"alignment not a power of two", [](auto& s) { s.header.kernel_alignment = 3; },
       Errc::kMalformed, "impossible"},
      {"alignment 0", [](auto& s) { s.header.kernel_alignment = 0; }, Errc::kMalformed,
       "impossible"},
      {"more RAM than there is", [](auto& s) { s.header.init_size = 17 * kMiB; },
       Errc::kInvalidArgument, "needs RAM up to 33 MiB"},
      {"the largest init_size", [](auto& s) { s.header.init_size = 0xffffffff; },
       Errc::kInvalidArgument, "needs RAM"},
      {"outside RAM", [](auto& s) { s.header.pref_address = kGiB; }, Errc::kInvalidArgument,
       "needs RAM"},
      {"a command line longer than the kernel takes", [](auto& s) { s.header.cmdline_size = 12; },
       Errc::kInvalidArgument, "has 13 bytes; kernel 'test' takes at most 12"},
  };
  const TestRam ram(kRamSize);
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    BzImageSpec spec;
    c.bend(spec);
    const auto guest = LoadGuest(ram.space(), ram.Source(MakeBzImage(spec)));
    ASSERT_FALSE(guest);
    EXPECT_EQ(guest.error().code(), c.code);
    EXPECT_THAT(guest.error().message(), HasSubstr(c.says));
    EXPECT_THAT(guest.error().message(), HasSubstr("kernel 'test'"));
    EXPECT_FALSE(guest.error().hint().empty());
  }
}

TEST(BzImage, TakesHeadersAtTheirLimits) {
  const struct {
    const char* why;
    std::function<void(BzImageSpec&)> bend;
  } kCases[] = {
      {"protocol 2.12",
       [](auto& s) {
         s.header.version = 0x020c;
         s.header.jump_distance = 0x66;
       }},
      {"the longest header", [](auto& s) { s.header.jump_distance = 0xff; }},
      {"not relocatable, alignment 0",
       [](auto& s) {
         s.header.relocatable_kernel = 0;
         s.header.kernel_alignment = 0;
       }},
      {"all of RAM", [](auto& s) { s.header.init_size = 16 * kMiB; }},
      {"a command line of just the right length", [](auto& s) { s.header.cmdline_size = 13; }},
      {"a signature behind the payload", [](auto& s) { s.payload_size += 1000; }},
  };
  const TestRam ram(kRamSize);
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    BzImageSpec spec;
    c.bend(spec);
    const auto guest = LoadGuest(ram.space(), ram.Source(MakeBzImage(spec)));
    EXPECT_TRUE(guest) << guest.error().ToString();
  }
}

TEST(BzImage, RefusesAnInitrdThatDoesNotFit) {
  const TestRam ram(kRamSize);
  for (const std::uint64_t size : {15 * kMiB + 1, kRamSize, 2 * kRamSize}) {
    BootSource source = ram.Source(MakeBzImage({}));
    source.initrd = MakeBootFile("initrd 'i'", Image(size));
    const auto guest = LoadGuest(ram.space(), source);
    ASSERT_FALSE(guest);
    EXPECT_EQ(guest.error().code(), Errc::kInvalidArgument);
    EXPECT_THAT(guest.error().message(), HasSubstr("initrd 'i' of"));
    EXPECT_THAT(guest.error().message(), HasSubstr("15 MiB"));
  }
}

// Every length up to 4096 and beyond, to the last byte but one.
TEST(BzImage, SaysThatItIsTruncatedAtEveryLength) {
  const TestRam ram(kRamSize);
  const Image image = MakeBzImage({});
  for (std::size_t length = 0; length < image.size(); ++length) {
    const auto guest = LoadGuest(ram.space(), ram.Source(std::span(image).first(length)));
    ASSERT_FALSE(guest) << length;
    ASSERT_EQ(guest.error().code(), Errc::kMalformed) << length;
    ASSERT_THAT(guest.error().message(), HasSubstr("kernel 'test'")) << length;
    ASSERT_THAT(guest.error().message(), HasSubstr(std::to_string(length) + " bytes")) << length;
    ASSERT_FALSE(guest.error().hint().empty()) << length;
  }
}

TEST(BzImage, SaysThatASignedKernelIsTruncatedInItsSignature) {
  const TestRam ram(kRamSize);
  Image image = MakeBzImage({});
  const std::size_t signature = image.size();
  const auto put = [&image](std::size_t offset, std::uint32_t value) {
    std::memcpy(image.data() + offset, &value, sizeof value);
  };
  put(0x3c, 0x40);        // the PE header
  put(0x40, 0x00004550);  // "PE"
  put(0x58, 0x20b);       // PE32+
  put(0x58 + 108, 6);     // directories
  put(0x58 + 144, static_cast<std::uint32_t>(signature));
  put(0x58 + 148, 100);
  image.resize(signature + 100);
  EXPECT_TRUE(LoadGuest(ram.space(), ram.Source(image)));
  for (std::size_t length = 0; length < image.size(); ++length) {
    const auto guest = LoadGuest(ram.space(), ram.Source(std::span(image).first(length)));
    ASSERT_FALSE(guest) << length;
    ASSERT_EQ(guest.error().code(), Errc::kMalformed) << length;
  }
}

TEST(BzImage, SaysSoWhenTheFileShrinksAfterItWasOpened) {
  const TestRam ram(kRamSize);
  BootSource source = ram.Source(MakeBzImage({}));
  ASSERT_EQ(::ftruncate(source.kernel.fd.get(), 4500), 0);
  const auto guest = LoadGuest(ram.space(), source);
  ASSERT_FALSE(guest);
  EXPECT_EQ(guest.error().code(), Errc::kMalformed);
  EXPECT_THAT(guest.error().message(), HasSubstr("kernel 'test'"));
}

TEST(BzImage, CanBeLoadedAgainForAReset) {
  const TestRam ram(kRamSize);
  const BootSource source = ram.Source(MakeBzImage({}));
  ASSERT_TRUE(LoadGuest(ram.space(), source));
  ASSERT_TRUE(ram.space().Fill(GuestAddress(0), kRamSize, std::byte{0xee}));
  const auto guest = LoadGuest(ram.space(), source);
  ASSERT_TRUE(guest);
  EXPECT_EQ(ram.Get<std::uint8_t>(guest->entry), 0xc3);
  EXPECT_EQ(ram.Get<ZeroPage>(guest->boot_info).e820_entries, 6);
}

}  // namespace
}  // namespace holdfast::machine::boot
