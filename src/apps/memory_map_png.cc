// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <holdfast/units.h>

#include <algorithm>

#include "apps/memory_map.h"
#include "apps/png_writer.h"
#include "apps/text_table.h"

namespace holdfast::apps {
namespace {

constexpr Colour kGround{24, 24, 28};
constexpr Colour kText{225, 225, 225};
constexpr Colour kFaint{150, 150, 160};
constexpr Colour kPrivate{255, 255, 255};
constexpr std::size_t kLeast = 400;
constexpr std::size_t kMost = 8192;
constexpr std::size_t kAddressCharacters = 14;

// Sizes that follow from the picture's width.
struct Measure {
  explicit Measure(std::size_t wanted)
      : width(std::clamp(wanted, kLeast, kMost)),
        scale(std::max<std::size_t>(1, width / 512)),
        character(6 * scale),
        line(11 * scale),
        margin(4 * scale),
        left(kAddressCharacters * character),
        cell(std::max<std::size_t>(1, (width - left - margin) / kMapPictureColumns)),
        gap(line) {}
  std::size_t width;
  std::size_t scale;      // pixels of a font's point
  std::size_t character;  // width of one
  std::size_t line;       // height of a line of text
  std::size_t margin;
  std::size_t left;  // where the cells begin
  std::size_t cell;  // side of a cell
  std::size_t gap;   // between memory that is not contiguous
};

// White lines across: private memory, whatever node it lies on.
void Hatch(Canvas& canvas, std::size_t x, std::size_t y, std::size_t width, std::size_t height) {
  for (std::size_t row = y; row < y + height; ++row)
    for (std::size_t column = x; column < x + width; ++column)
      if ((row + column) % 4 == 0) canvas.Put(column, row, kPrivate);
}

// A cell; one on several nodes is divided between their colours, as they divide it.
void DrawCell(Canvas& canvas, const MapCell& cell, std::size_t x, std::size_t y, std::size_t side) {
  canvas.Fill(x, y, side, side, CellColour(cell));
  std::uint64_t placed = 0;
  for (const std::uint64_t bytes : cell.nodes) placed += bytes;
  std::uint64_t before = 0;
  for (std::size_t node = 0; node < cell.nodes.size() && placed > 0; ++node) {
    const auto column = [&](std::uint64_t bytes) {
      return static_cast<std::size_t>(static_cast<double>(bytes) / static_cast<double>(placed) *
                                          static_cast<double>(side) +
                                      0.5);
    };
    const std::size_t from = column(before);
    before += cell.nodes[node];
    canvas.Fill(x + from, y, column(before) - from, side, NodeShade(cell, node));
  }
}

// The rows from `y` on. @return where they end
std::size_t DrawRows(Canvas* canvas, const MemoryMap& map, const Measure& measure, std::size_t y) {
  std::size_t free_for_text = 0;
  const std::vector<MapRow> rows = LayOut(map, kMapPictureColumns);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const MapRow& row = rows[i];
    if (!row.continues && i > 0) y += measure.gap;
    if (canvas != nullptr) {
      if (!row.continues || y >= free_for_text) {
        canvas->Write(measure.margin, y, fmt::format("0x{:x}", map.cells[row.first].base), kFaint,
                      measure.scale);
        free_for_text = y + measure.line + measure.scale;
      }
      for (std::size_t column = 0; column < row.count; ++column) {
        const MapCell& cell = map.cells[row.first + column];
        const std::size_t x = measure.left + column * measure.cell;
        DrawCell(*canvas, cell, x, y, measure.cell);
        if (cell.private_bytes > 0) Hatch(*canvas, x, y, measure.cell, measure.cell);
      }
    }
    y += measure.cell;
  }
  // The last address needs its height too.
  return y + measure.line;
}

struct LegendEntry {
  Colour colour;
  bool hatched;
  std::string text;
};

std::vector<LegendEntry> LegendOf(const MemoryMap& map) {
  const MemoryUse total = map.Total();
  std::vector<LegendEntry> entries;
  for (std::size_t node = 0; node < total.nodes.size(); ++node) {
    if (total.nodes[node] == 0) continue;
    entries.push_back({NodeColour(node), false,
                       fmt::format("host node {}: {}", node, FormatSize(total.nodes[node]))});
  }
  entries.push_back({kNothingAllocated, false,
                     fmt::format("not allocated: {}", FormatSize(total.size - total.allocated))});
  entries.push_back({kNothingAllocated, true,
                     fmt::format("private, striped: {}", FormatSize(total.private_bytes))});
  return entries;
}

std::string CellSentence(const MemoryMap& map) {
  std::uint64_t largest = 0;
  for (const MapCell& cell : map.cells) largest = std::max(largest, cell.size);
  return fmt::format("A cell is {}. Darker: allocated in part; two colours: on two nodes.",
                     FormatSize(largest));
}

}  // namespace

std::string DrawMapAsPng(const MemoryMap& map, std::size_t width) {
  const Measure measure(width);
  const std::vector<LegendEntry> legend = LegendOf(map);
  const std::size_t rows_at = measure.margin + 3 * measure.line;
  const std::size_t legend_at = DrawRows(nullptr, map, measure, rows_at) + measure.line;
  const std::size_t height =
      legend_at + (legend.size() + map.backends.size() + 1) * measure.line + measure.margin;
  Canvas canvas(measure.width, height, kGround);
  canvas.Write(measure.margin, measure.margin, MapTitle(map), kText, measure.scale);
  canvas.Write(measure.margin, measure.margin + measure.line, CellSentence(map), kFaint,
               measure.scale);
  DrawRows(&canvas, map, measure, rows_at);
  std::size_t y = legend_at;
  const std::size_t swatch = 7 * measure.scale;
  for (const LegendEntry& entry : legend) {
    canvas.Fill(measure.margin, y, 2 * swatch, swatch, entry.colour);
    if (entry.hatched) Hatch(canvas, measure.margin, y, 2 * swatch, swatch);
    canvas.Write(measure.margin + 3 * swatch, y, entry.text, kText, measure.scale);
    y += measure.line;
  }
  y += measure.line;
  for (const MapBackend& backend : map.backends) {
    canvas.Write(measure.margin, y,
                 fmt::format("{}: {} of {} ({})", backend.id, FormatSize(backend.allocated),
                             FormatSize(backend.size),
                             FormatPercent(static_cast<double>(backend.allocated),
                                           static_cast<double>(backend.size))),
                 kText, measure.scale);
    y += measure.line;
  }
  return EncodePng(canvas);
}

}  // namespace holdfast::apps
