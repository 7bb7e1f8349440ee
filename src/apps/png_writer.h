// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "apps/memory_map.h"

namespace holdfast::apps {

/// A picture to draw on. What lies outside is not drawn.
class Canvas {
 public:
  Canvas(std::size_t width, std::size_t height, Colour ground)
      : width_(width), height_(height), pixels_(width * height, ground) {}

  std::size_t width() const noexcept { return width_; }
  std::size_t height() const noexcept { return height_; }
  Colour At(std::size_t x, std::size_t y) const { return pixels_[y * width_ + x]; }

  void Put(std::size_t x, std::size_t y, Colour colour);
  void Fill(std::size_t x, std::size_t y, std::size_t width, std::size_t height, Colour colour);
  /// Text in a built-in font of 5 x 7 points, each `scale` pixels wide; a character takes 6 points.
  void Write(std::size_t x, std::size_t y, std::string_view text, Colour colour, std::size_t scale);

 private:
  std::size_t width_;
  std::size_t height_;
  std::vector<Colour> pixels_;
};

/// The picture as a PNG file (ISO/IEC 15948): with a palette if it has at most 256 colours.
std::string EncodePng(const Canvas& canvas);

/// A zlib stream (RFC 1950) of `data`: one deflate block (RFC 1951) with the fixed codes, in which
/// only runs of equal bytes are shortened. That is what plain areas consist of.
std::string Compress(std::string_view data);

/// The rows of a character of the font, five bits each, the highest on the left; a box for
/// characters it does not have.
const std::uint8_t* Glyph(char character);
inline constexpr std::size_t kGlyphRows = 7;
inline constexpr std::size_t kGlyphColumns = 5;

}  // namespace holdfast::apps
