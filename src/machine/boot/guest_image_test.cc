// SPDX-License-Identifier: Apache-2.0
#include "machine/boot/guest_image.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "machine/boot/test_images.h"

namespace holdfast::machine::boot {
namespace {

using ::testing::HasSubstr;

TEST(GuestImage, SaysWhatItWasGivenInsteadOfAKernel) {
  using namespace std::string_literals;
  const std::string zeros(4096, '\0');
  std::string arm64 = zeros;
  arm64.replace(56, 4, "ARM\x64");
  const struct {
    const char* why;
    std::string file;
    const char* says;
  } kCases[] = {
      {"a text file", std::string(1000, 'a') + "\n", "is a text file, not a kernel"},
      {"a short text file", "hello\n", "has only 6 bytes and is a text file"},
      {"one byte", "\0"s, "has only 1 bytes: too few"},
      {"zeros", zeros, "is of an unknown format"},
      {"EFI zboot", "MZ\0\0zimg"s + zeros, "is an EFI zboot image"},
      {"an EFI program", "MZ"s + zeros, "is an EFI program without a Linux boot header"},
      {"arm64", arm64, "is an arm64 kernel image"},
      {"gzip", "\x1f\x8b\x08"s + zeros, "is gzip-compressed"},
      {"zstd", "\x28\xb5\x2f\xfd"s + zeros, "is zstd-compressed"},
      {"xz",
       "\xfd"
       "7zXZ\0"s +
           zeros,
       "is xz-compressed"},
      {"an initrd", "070701"s + zeros, "is a cpio archive"},
      {"a disk image", "QFI\xfb"s + zeros, "is a qcow2 disk image"},
  };
  const testing::TestRam ram(2 * kMiB);
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    const auto guest = LoadGuest(ram.space(), ram.Source(std::as_bytes(std::span(c.file))));
    ASSERT_FALSE(guest);
    EXPECT_EQ(guest.error().code(), Errc::kMalformed);
    EXPECT_THAT(guest.error().message(), HasSubstr(std::string("kernel 'test' ") + c.says));
    EXPECT_EQ(guest.error().hint(), kAcceptedFormats);
  }
}

TEST(GuestImage, RefusesAMapThatDoesNotDescribeTheRam) {
  const testing::TestRam large(64 * kMiB);
  const testing::TestRam small(kMiB);
  for (const auto& image : {testing::MakeBzImage({}), testing::MakePvh({})}) {
    const auto guest = LoadGuest(small.space(), large.Source(image));
    ASSERT_FALSE(guest);
    EXPECT_EQ(guest.error().code(), Errc::kInvalidArgument);
  }
}

}  // namespace
}  // namespace holdfast::machine::boot
