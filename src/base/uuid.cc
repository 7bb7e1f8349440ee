// SPDX-License-Identifier: Apache-2.0
#include "base/uuid.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <charconv>
#include <span>

namespace holdfast {

std::array<std::uint8_t, 16> FirmwareUuid(std::string_view text) noexcept {
  constexpr std::array<std::size_t, 16> kPlaces = {3, 2, 1,  0,  5,  4,  7,  6,
                                                   8, 9, 10, 11, 12, 13, 14, 15};
  std::array<std::uint8_t, 16> bytes{};
  std::size_t at = 0;
  for (const std::size_t place : kPlaces) {
    while (at < text.size() && text[at] == '-') ++at;
    if (at + 2 > text.size()) break;
    (void)std::from_chars(text.data() + at, text.data() + at + 2, bytes.at(place), 16);
    at += 2;
  }
  return bytes;
}

Result<std::string> RandomUuid() {
  std::array<std::uint8_t, 16> b{};
  if (::getrandom(b.data(), b.size(), 0) != static_cast<ssize_t>(b.size()))
    return FailErrno("getting random numbers for a UUID");
  b[6] = static_cast<std::uint8_t>((b[6] & 0x0f) | 0x40);
  b[8] = static_cast<std::uint8_t>((b[8] & 0x3f) | 0x80);
  const std::span<const std::uint8_t> all(b);
  return fmt::format("{:02x}-{:02x}-{:02x}-{:02x}-{:02x}", fmt::join(all.subspan(0, 4), ""),
                     fmt::join(all.subspan(4, 2), ""), fmt::join(all.subspan(6, 2), ""),
                     fmt::join(all.subspan(8, 2), ""), fmt::join(all.subspan(10, 6), ""));
}

}  // namespace holdfast
