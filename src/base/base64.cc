// SPDX-License-Identifier: Apache-2.0
#include "base/base64.h"

#include <cstdint>

namespace holdfast {
namespace {

constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
constexpr unsigned kBitsOfDigit = 6;
constexpr std::size_t kDigitsOfGroup = 4;

bool IsSpace(char c) noexcept {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

}  // namespace

std::optional<std::vector<std::byte>> DecodeBase64(std::string_view text) {
  std::vector<std::byte> bytes;
  bytes.reserve(text.size() / kDigitsOfGroup * 3);
  std::uint32_t bits = 0;
  unsigned held = 0;  // bits of `bits` that are in no byte yet
  std::size_t digits = 0;
  std::size_t padding = 0;
  for (const char c : text) {
    if (IsSpace(c)) continue;
    if (c == '=') {
      ++padding;
      continue;
    }
    const std::size_t value = kDigits.find(c);
    if (value == std::string_view::npos || padding != 0) return std::nullopt;
    ++digits;
    bits = bits << kBitsOfDigit | static_cast<std::uint32_t>(value);
    held += kBitsOfDigit;
    if (held >= 8) {
      held -= 8;
      bytes.push_back(static_cast<std::byte>(bits >> held & 0xffU));
      bits &= (1U << held) - 1;
    }
  }
  if (padding > 2 || (digits + padding) % kDigitsOfGroup != 0 || bits != 0) return std::nullopt;
  return bytes;
}

std::string EncodeBase64(std::span<const std::byte> bytes) {
  std::string text;
  text.reserve((bytes.size() + 2) / 3 * kDigitsOfGroup);
  std::uint32_t bits = 0;
  unsigned held = 0;
  for (const std::byte byte : bytes) {
    bits = (bits << 8 | std::to_integer<std::uint32_t>(byte)) & 0xffffU;
    held += 8;
    while (held >= kBitsOfDigit) {
      held -= kBitsOfDigit;
      text.push_back(kDigits[bits >> held & 0x3fU]);
    }
  }
  if (held != 0) text.push_back(kDigits[bits << (kBitsOfDigit - held) & 0x3fU]);
  while (text.size() % kDigitsOfGroup != 0) text.push_back('=');
  return text;
}

}  // namespace holdfast
