// SPDX-License-Identifier: Apache-2.0
#include "machine/boot/guest_image.h"

#include <algorithm>
#include <array>
#include <string_view>

#include <fmt/format.h>

#include "machine/boot/bzimage.h"
#include "machine/boot/pvh.h"

namespace holdfast::machine::boot {
namespace {

using Head = std::span<const std::byte>;

bool HasAt(Head head, std::size_t offset, std::string_view magic) {
  if (head.size() < offset + magic.size()) return false;
  return std::ranges::equal(magic, head.subspan(offset, magic.size()),
                            [](char a, std::byte b) { return std::byte(a) == b; });
}

bool IsText(Head head) {
  return std::ranges::all_of(head.first(std::min<std::size_t>(head.size(), 512)), [](std::byte b) {
    const auto c = std::to_integer<unsigned char>(b);
    return c >= 0x20 ? c != 0x7f : (c == '\n' || c == '\t' || c == '\r' || c == '\f');
  });
}

// What people give by mistake, so that the message can say it. The magics hold zero bytes, hence
// string_view literals.
std::string_view Describe(Head head) {
  using namespace std::string_view_literals;
  static constexpr struct {
    std::size_t offset;
    std::string_view magic;
    std::string_view what;
  } kKnown[] = {
      {4, "zimg"sv, "an EFI zboot image"sv},
      {56, "ARM\x64"sv, "an arm64 kernel image"sv},
      {0, "MZ"sv, "an EFI program without a Linux boot header"sv},
      {0, "\x1f\x8b"sv, "gzip-compressed"sv},
      {0,
       "\xfd"
       "7zXZ\0"sv,
       "xz-compressed"sv},
      {0, "\x28\xb5\x2f\xfd"sv, "zstd-compressed"sv},
      {0, "\x02\x21\x4c\x18"sv, "lz4-compressed"sv},
      {0, "BZh"sv, "bzip2-compressed"sv},
      {0, "070701"sv, "a cpio archive (an initrd?)"sv},
      {0, "QFI\xfb"sv, "a qcow2 disk image"sv},
  };
  for (const auto& known : kKnown)
    if (HasAt(head, known.offset, known.magic)) return known.what;
  if (IsText(head)) return "a text file";
  return {};
}

}  // namespace

Result<LoadedGuest> LoadGuest(const AddressSpace& ram, const BootSource& source) {
  std::array<std::byte, kKernelHeadSize> buffer;
  HF_TRY(const std::size_t length, ReadSome(source.kernel, 0, buffer));
  const Head head = std::span(buffer).first(length);

  if (LooksLikeElf(head)) return LoadPvh(ram, source, head);
  if (LooksLikeBzImage(head)) return LoadBzImage(ram, source, head);

  const std::string_view what = Describe(head);
  if (head.size() < kMinBzImageHead)
    return Fail(Errc::kMalformed,
                fmt::format("{} has only {} bytes{}{}: too few for a kernel", source.kernel.name,
                            head.size(), what.empty() ? "" : " and is ", what),
                kAcceptedFormats);
  return Fail(Errc::kMalformed,
              fmt::format("{} is {}, not a kernel that can be booted", source.kernel.name,
                          what.empty() ? "of an unknown format" : what),
              kAcceptedFormats);
}

}  // namespace holdfast::machine::boot
