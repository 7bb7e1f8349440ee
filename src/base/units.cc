// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <holdfast/units.h>
#include <array>
#include <cctype>
#include <charconv>

namespace holdfast {
namespace {

// The power of 1024 a suffix stands for; nullopt if it is none.
std::optional<unsigned> SuffixShift(char suffix) {
  switch (std::tolower(static_cast<unsigned char>(suffix))) {
    case 'b':
      return 0;
    case 'k':
      return 10;
    case 'm':
      return 20;
    case 'g':
      return 30;
    case 't':
      return 40;
    case 'p':
      return 50;
    case 'e':
      return 60;
    default:
      return std::nullopt;
  }
}

// Decimal digits after the point as a fraction of `unit`, rounded down; the digits are given.
std::optional<std::uint64_t> FractionOf(std::string_view digits, std::uint64_t unit) {
  if (digits.empty() || digits.size() > 18) return std::nullopt;
  __extension__ using Uint128 = unsigned __int128;
  Uint128 numerator = 0;
  Uint128 denominator = 1;
  for (char digit : digits) {
    if (std::isdigit(static_cast<unsigned char>(digit)) == 0) return std::nullopt;
    numerator = numerator * 10 + static_cast<unsigned>(digit - '0');
    denominator *= 10;
  }
  return static_cast<std::uint64_t>(numerator * unit / denominator);
}

}  // namespace

std::optional<std::uint64_t> ParseSize(std::string_view text, std::uint64_t default_unit) {
  if (text.empty() || std::isdigit(static_cast<unsigned char>(text.front())) == 0)
    return std::nullopt;
  const bool hex = text.size() > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
  if (hex) text.remove_prefix(2);

  std::uint64_t unit = default_unit;
  // In hexadecimal 'b' and 'e' are digits; QEMU takes no suffix there either.
  if (!hex && std::isdigit(static_cast<unsigned char>(text.back())) == 0) {
    const auto shift = SuffixShift(text.back());
    if (!shift) return std::nullopt;
    unit = 1ULL << *shift;
    text.remove_suffix(1);
  }

  std::uint64_t whole = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, whole, hex ? 16 : 10);
  if (error != std::errc{}) return std::nullopt;
  const auto bytes = CheckedMul(whole, unit);
  if (!bytes || rest == end) return bytes;

  if (hex || *rest != '.') return std::nullopt;
  const auto fraction = FractionOf({rest + 1, static_cast<std::size_t>(end - rest - 1)}, unit);
  if (!fraction) return std::nullopt;
  return CheckedAdd(*bytes, *fraction);
}

std::string FormatSize(std::uint64_t bytes) {
  constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::size_t unit = 0;
  std::uint64_t scale = 1;
  while (unit + 1 < kUnits.size() && bytes / scale >= 1024) {
    scale *= 1024;
    ++unit;
  }
  if (bytes % scale == 0) return fmt::format("{} {}", bytes / scale, kUnits[unit]);
  return fmt::format("{:.3g} {}", static_cast<double>(bytes) / static_cast<double>(scale),
                     kUnits[unit]);
}

}  // namespace holdfast
