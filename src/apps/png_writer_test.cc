// SPDX-License-Identifier: Apache-2.0
#include "apps/png_writer.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <utility>

namespace holdfast::apps {
namespace {

// Reads what any reader of deflate reads, as far as one block with fixed codes and the shortest
// distance goes: written from RFC 1951, not from the writer.
class Inflate {
 public:
  explicit Inflate(std::string_view data) : data_(data) {}

  std::optional<std::string> Block() {
    if (Bits(1) != 1 || Bits(2) != 1) return std::nullopt;
    std::string out;
    for (;;) {
      const unsigned symbol = Symbol();
      if (overrun_) return std::nullopt;
      if (symbol < 256) {
        out += static_cast<char>(symbol);
        continue;
      }
      if (symbol == 256) return out;
      std::size_t length = 258;
      if (symbol < 265) length = symbol - 254;
      if (symbol > 264 && symbol != 285) return std::nullopt;
      unsigned distance = 0;
      for (int i = 0; i < 5; ++i) distance = distance << 1U | Bits(1);
      if (distance != 0 || out.empty()) return std::nullopt;
      out.append(length, out.back());
    }
  }
  // Bytes read, the last one perhaps in part.
  std::size_t used() const { return (at_ + 7) / 8; }

 private:
  unsigned Bits(unsigned count) {
    unsigned value = 0;
    for (unsigned i = 0; i < count; ++i, ++at_) {
      if (at_ / 8 >= data_.size()) {
        overrun_ = true;
        return 0;
      }
      value |= (static_cast<unsigned char>(data_[at_ / 8]) >> at_ % 8 & 1U) << i;
    }
    return value;
  }
  unsigned Symbol() {
    unsigned code = 0;
    for (int i = 0; i < 7; ++i) code = code << 1U | Bits(1);
    if (code <= 0x17) return 256 + code;
    code = code << 1U | Bits(1);
    if (code >= 0x30 && code <= 0xbf) return code - 0x30;
    if (code >= 0xc0 && code <= 0xc7) return 280 + code - 0xc0;
    code = code << 1U | Bits(1);
    return 144 + code - 0x190;
  }

  std::string_view data_;
  std::size_t at_ = 0;
  bool overrun_ = false;
};

std::uint32_t BigEndian(std::string_view text) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8U | static_cast<unsigned char>(text[i]);
  return value;
}

std::optional<std::string> Decompress(std::string_view stream) {
  if (stream.size() < 6 ||
      (static_cast<unsigned char>(stream[0]) * 256U + static_cast<unsigned char>(stream[1])) % 31 !=
          0)
    return std::nullopt;
  Inflate inflate(stream.substr(2));
  auto data = inflate.Block();
  if (!data || 2 + inflate.used() + 4 != stream.size()) return std::nullopt;
  std::uint32_t a = 1;
  std::uint32_t b = 0;
  for (const char c : *data) {
    a = (a + static_cast<unsigned char>(c)) % 65521;
    b = (b + a) % 65521;
  }
  if (BigEndian(stream.substr(stream.size() - 4)) != b * 65536 + a) return std::nullopt;
  return data;
}

std::uint32_t SlowCrc(std::string_view data) {
  std::uint32_t crc = 0xffffffff;
  for (const char c : data) {
    crc ^= static_cast<unsigned char>(c);
    for (int i = 0; i < 8; ++i) crc = crc >> 1U ^ ((crc & 1U) != 0 ? 0xedb88320 : 0);
  }
  return ~crc;
}

// The pixels of a PNG file, read by the standard; empty if it breaks it.
std::optional<Canvas> Decode(std::string_view file) {
  if (!file.starts_with("\x89PNG\r\n\x1a\n")) return std::nullopt;
  file.remove_prefix(8);
  std::string header, palette, data;
  while (!file.empty()) {
    if (file.size() < 12) return std::nullopt;
    const std::size_t size = BigEndian(file);
    if (size > file.size() - 12) return std::nullopt;
    const std::string_view type = file.substr(4, 4);
    if (BigEndian(file.substr(8 + size)) != SlowCrc(file.substr(4, 4 + size))) return std::nullopt;
    if (type == "IHDR") header = file.substr(8, size);
    if (type == "PLTE") palette = file.substr(8, size);
    if (type == "IDAT") data += file.substr(8, size);
    file.remove_prefix(12 + size);
    if (type == "IEND" && !file.empty()) return std::nullopt;
  }
  if (header.size() != 13 || header.substr(10) != std::string(3, '\0')) return std::nullopt;
  const std::size_t width = BigEndian(header);
  const std::size_t height = BigEndian(std::string_view(header).substr(4));
  const std::size_t depth = header[9] == 3 ? 1 : 3;
  const auto rows = Decompress(data);
  if (!rows || rows->size() != height * (1 + width * depth)) return std::nullopt;
  Canvas canvas(width, height, {});
  std::string above(width * depth, '\0');
  for (std::size_t y = 0; y < height; ++y) {
    const std::string_view row = std::string_view(*rows).substr(y * (1 + width * depth));
    if (row[0] != 2) return std::nullopt;
    for (std::size_t i = 0; i < above.size(); ++i)
      above[i] = static_cast<char>(above[i] + row[1 + i]);
    for (std::size_t x = 0; x < width; ++x) {
      std::string_view pixel = std::string_view(above).substr(x * depth, depth);
      if (depth == 1)
        pixel = std::string_view(palette).substr(static_cast<unsigned char>(pixel[0]) * 3U, 3);
      canvas.Put(x, y,
                 {static_cast<std::uint8_t>(pixel[0]), static_cast<std::uint8_t>(pixel[1]),
                  static_cast<std::uint8_t>(pixel[2])});
    }
  }
  return canvas;
}

std::string Mixed() {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += static_cast<char>(i * i % 251);
  return text;
}

TEST(PngWriterTest, WhatIsCompressedComesBack) {
  std::string every;
  for (int i = 0; i < 256; ++i) every += static_cast<char>(i);
  std::string lengths;
  for (std::size_t i = 1; i < 600; ++i) lengths += std::string(i, static_cast<char>(i));
  for (const std::string& data :
       {std::string(), std::string("a"), every, lengths, Mixed(), std::string(100000, '\0')}) {
    const auto back = Decompress(Compress(data));
    ASSERT_TRUE(back) << data.size();
    EXPECT_EQ(*back, data);
  }
  EXPECT_LT(Compress(std::string(100000, '\0')).size(), 1000U);
}

TEST(PngWriterTest, APictureComesBackWithFewColoursAndWithMany) {
  for (const unsigned colours : {2U, 256U, 257U}) {
    Canvas canvas(37, 29, {1, 2, 3});
    for (unsigned i = 0; i + 1 < colours; ++i)
      canvas.Put(i % 37, i / 37,
                 {static_cast<std::uint8_t>(i), static_cast<std::uint8_t>(i >> 8U), 200});
    const std::string file = EncodePng(canvas);
    EXPECT_EQ(file.find("PLTE") != std::string::npos, colours <= 256);
    const auto back = Decode(file);
    ASSERT_TRUE(back) << colours;
    ASSERT_EQ(back->width(), 37U);
    ASSERT_EQ(back->height(), 29U);
    for (std::size_t y = 0; y < 29; ++y)
      for (std::size_t x = 0; x < 37; ++x) EXPECT_EQ(back->At(x, y), canvas.At(x, y));
  }
}

TEST(PngWriterTest, NothingIsDrawnOutside) {
  Canvas canvas(4, 4, {});
  canvas.Fill(2, 2, 100, 100, {9, 9, 9});
  canvas.Put(4, 0, {9, 9, 9});
  canvas.Write(3, 3, "WW", {9, 9, 9}, 2);
  EXPECT_EQ(canvas.At(0, 1), Colour());
  EXPECT_EQ(canvas.At(3, 3), (Colour{9, 9, 9}));
}

TEST(PngWriterTest, CharactersOfTheFontDiffer) {
  const std::string known =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz .,:;-_/()%+=?[]";
  const auto rows = [](char c) { return std::string(reinterpret_cast<const char*>(Glyph(c)), 7); };
  for (const char a : known) {
    EXPECT_NE(rows(a), rows('\x01')) << a;
    for (const char b : known) EXPECT_EQ(rows(a) == rows(b), a == b) << a << b;
  }
}

}  // namespace
}  // namespace holdfast::apps
