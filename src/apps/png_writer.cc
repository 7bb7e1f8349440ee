// SPDX-License-Identifier: Apache-2.0
#include "apps/png_writer.h"

#include <algorithm>
#include <array>
#include <map>

namespace holdfast::apps {
namespace {

constexpr std::string_view kSignature = "\x89PNG\r\n\x1a\n";
constexpr std::size_t kMostPaletteColours = 256;
constexpr char kFilterUp = 2;  // each byte less the one above it

constexpr std::array<std::uint32_t, 256> MakeCrcTable() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit)
      value = (value & 1U) != 0 ? 0xedb88320U ^ (value >> 1U) : value >> 1U;
    table.at(i) = value;
  }
  return table;
}

std::uint32_t Crc32(std::string_view data) {
  static constexpr std::array<std::uint32_t, 256> kTable = MakeCrcTable();
  std::uint32_t crc = 0xffffffffU;
  for (const char c : data)
    crc = kTable.at((crc ^ static_cast<unsigned char>(c)) & 0xffU) ^ (crc >> 8U);
  return ~crc;
}

std::uint32_t Adler32(std::string_view data) {
  constexpr std::uint32_t kPrime = 65521;
  std::uint32_t a = 1;
  std::uint32_t b = 0;
  for (const char c : data) {
    a = (a + static_cast<unsigned char>(c)) % kPrime;
    b = (b + a) % kPrime;
  }
  return b << 16U | a;
}

void AppendBigEndian(std::string& text, std::uint32_t value) {
  for (const unsigned shift : {24U, 16U, 8U, 0U}) text += static_cast<char>(value >> shift & 0xffU);
}

void AppendChunk(std::string& file, std::string_view type, std::string_view data) {
  AppendBigEndian(file, static_cast<std::uint32_t>(data.size()));
  std::string body(type);
  body += data;
  file += body;
  AppendBigEndian(file, Crc32(body));
}

// Bits in deflate's order: the first goes into the lowest bit of a byte.
class BitWriter {
 public:
  explicit BitWriter(std::string& out) : out_(out) {}
  void Bits(std::uint32_t value, unsigned count) {
    for (unsigned i = 0; i < count; ++i) {
      if (used_ == 0) out_ += '\0';
      const auto bit = static_cast<unsigned char>((value >> i & 1U) << used_);
      out_.back() = static_cast<char>(static_cast<unsigned char>(out_.back()) | bit);
      used_ = (used_ + 1) % 8;
    }
  }
  // A Huffman code, whose first bit is its highest.
  void Code(std::uint32_t code, unsigned count) {
    for (unsigned i = count; i-- > 0;) Bits(code >> i & 1U, 1);
  }

 private:
  std::string& out_;
  unsigned used_ = 0;
};

void AppendLiteral(BitWriter& bits, unsigned char byte) {
  if (byte < 144) {
    bits.Code(0x30U + byte, 8);
  } else {
    bits.Code(0x190U + byte - 144U, 9);
  }
}

// The byte before again, `length` times. Only the lengths without extra bits are used.
void AppendRun(BitWriter& bits, std::size_t length, unsigned char byte) {
  constexpr std::size_t kLongest = 258;
  constexpr std::size_t kLongestShort = 10;
  while (length > 0) {
    std::size_t part = 1;
    if (length >= kLongest) {
      part = kLongest;
      bits.Code(0xc0U + 285 - 280, 8);
    } else if (length >= 3) {
      part = std::min(length, kLongestShort);
      bits.Code(static_cast<std::uint32_t>(1 + part - 3), 7);
    } else {
      AppendLiteral(bits, byte);
    }
    if (part > 1) bits.Code(0, 5);  // distance 1
    length -= part;
  }
}

std::string PixelBytes(const Canvas& canvas, const std::map<Colour, std::uint8_t>& palette) {
  std::string rows;
  std::string above;
  for (std::size_t y = 0; y < canvas.height(); ++y) {
    std::string row;
    for (std::size_t x = 0; x < canvas.width(); ++x) {
      const Colour colour = canvas.At(x, y);
      if (palette.empty()) {
        for (const std::uint8_t part : {colour.red, colour.green, colour.blue})
          row += static_cast<char>(part);
      } else {
        row += static_cast<char>(palette.at(colour));
      }
    }
    above.resize(row.size());
    rows += kFilterUp;
    for (std::size_t i = 0; i < row.size(); ++i)
      rows += static_cast<char>(static_cast<unsigned char>(row[i]) -
                                static_cast<unsigned char>(above[i]));
    above = std::move(row);
  }
  return rows;
}

}  // namespace

void Canvas::Put(std::size_t x, std::size_t y, Colour colour) {
  if (x < width_ && y < height_) pixels_[y * width_ + x] = colour;
}

void Canvas::Fill(std::size_t x, std::size_t y, std::size_t width, std::size_t height,
                  Colour colour) {
  for (std::size_t row = y; row < std::min(y + height, height_); ++row)
    for (std::size_t column = x; column < std::min(x + width, width_); ++column)
      Put(column, row, colour);
}

void Canvas::Write(std::size_t x, std::size_t y, std::string_view text, Colour colour,
                   std::size_t scale) {
  for (const char character : text) {
    const std::uint8_t* rows = Glyph(character);
    for (std::size_t row = 0; row < kGlyphRows; ++row)
      for (std::size_t column = 0; column < kGlyphColumns; ++column)
        if ((rows[row] >> (kGlyphColumns - 1 - column) & 1U) != 0)
          Fill(x + column * scale, y + row * scale, scale, scale, colour);
    x += (kGlyphColumns + 1) * scale;
  }
}

std::string Compress(std::string_view data) {
  std::string stream = "\x78\x01";  // deflate, 32 KiB window, fastest
  BitWriter bits(stream);
  bits.Bits(1, 1);  // the last block
  bits.Bits(1, 2);  // fixed codes
  for (std::size_t at = 0; at < data.size();) {
    const auto byte = static_cast<unsigned char>(data[at]);
    const std::size_t end = std::min(data.find_first_not_of(data[at], at), data.size());
    AppendLiteral(bits, byte);
    AppendRun(bits, end - at - 1, byte);
    at = end;
  }
  bits.Code(0, 7);  // the end
  AppendBigEndian(stream, Adler32(data));
  return stream;
}

std::string EncodePng(const Canvas& canvas) {
  std::map<Colour, std::uint8_t> palette;
  std::string colours;
  bool few = true;
  for (std::size_t y = 0; y < canvas.height() && few; ++y) {
    for (std::size_t x = 0; x < canvas.width() && few; ++x) {
      const Colour colour = canvas.At(x, y);
      if (palette.contains(colour)) continue;
      few = palette.size() < kMostPaletteColours;
      if (!few) break;
      palette.emplace(colour, static_cast<std::uint8_t>(palette.size()));
      for (const std::uint8_t part : {colour.red, colour.green, colour.blue})
        colours += static_cast<char>(part);
    }
  }
  if (!few) palette.clear();
  std::string header;
  AppendBigEndian(header, static_cast<std::uint32_t>(canvas.width()));
  AppendBigEndian(header, static_cast<std::uint32_t>(canvas.height()));
  header += '\x08';                 // bits a sample
  header += few ? '\x03' : '\x02';  // palette, or red green blue
  header.append(3, '\0');           // deflate, filters by row, not interlaced
  std::string file(kSignature);
  AppendChunk(file, "IHDR", header);
  if (few) AppendChunk(file, "PLTE", colours);
  AppendChunk(file, "IDAT", Compress(PixelBytes(canvas, palette)));
  AppendChunk(file, "IEND", {});
  return file;
}

}  // namespace holdfast::apps
