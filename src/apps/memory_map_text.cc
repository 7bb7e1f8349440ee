// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <holdfast/units.h>

#include <algorithm>
#include <string_view>

#include "apps/memory_map.h"
#include "apps/text_table.h"

namespace holdfast::apps {
namespace {

// "0x10000000000" and two blanks: RAM ends at 1 TiB or lower on most machines.
constexpr std::size_t kAddressColumns = 14;
constexpr std::string_view kReset = "\x1b[0m";
constexpr Colour kPrivateGround{255, 255, 255};

// The node that has more than three quarters of the cell; empty if several share it.
char NodeLetter(const MapCell& cell) {
  std::uint64_t placed = 0;
  std::size_t most = 0;
  for (std::size_t node = 0; node < cell.nodes.size(); ++node) {
    placed += cell.nodes[node];
    if (cell.nodes[node] > cell.nodes[most]) most = node;
  }
  if (placed == 0) return '?';
  if (cell.nodes[most] < placed - placed / 4) return '+';
  return static_cast<char>('a' + most % 26);
}

char CellLetter(const MapCell& cell) {
  if (cell.allocated == 0) return cell.private_bytes > 0 ? '_' : '.';
  const char letter = NodeLetter(cell);
  if (cell.private_bytes == 0) return letter;
  return letter == '+' || letter == '?' ? '#' : static_cast<char>(letter - 'a' + 'A');
}

std::string Colours(Colour front, Colour back) {
  return fmt::format("\x1b[38;5;{};48;5;{}m", TerminalColour(front), TerminalColour(back));
}
std::string Front(Colour front) {
  return fmt::format("\x1b[38;5;{}m", TerminalColour(front));
}

// Two cells in one character: the upper is the foreground of a half block, the lower the
// background. Private memory shows as a grid on white.
std::string CellPair(const MapCell& upper, const MapCell* lower) {
  const bool is_private = upper.private_bytes > 0 || (lower != nullptr && lower->private_bytes > 0);
  if (is_private) {
    const MapCell& shown = upper.private_bytes > 0 || lower == nullptr ? upper : *lower;
    return Colours(CellColour(shown), kPrivateGround) + "▓";
  }
  if (lower == nullptr) return std::string(kReset) + Front(CellColour(upper)) + "▀";
  return Colours(CellColour(upper), CellColour(*lower)) + "▀";
}

std::string Address(const MapCell& cell) {
  return fmt::format("{:<{}}", fmt::format("0x{:x}", cell.base), kAddressColumns);
}

std::string DrawColours(const MemoryMap& map, const std::vector<MapRow>& rows) {
  std::string text;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const MapRow& upper = rows[i];
    const bool pair = i + 1 < rows.size() && rows[i + 1].continues;
    const std::size_t lower_count = pair ? rows[i + 1].count : 0;
    text += Address(map.cells[upper.first]);
    for (std::size_t column = 0; column < upper.count; ++column) {
      const MapCell* lower =
          column < lower_count ? &map.cells[rows[i + 1].first + column] : nullptr;
      text += CellPair(map.cells[upper.first + column], lower);
    }
    text += std::string(kReset) + "\n";
    if (pair) ++i;
  }
  return text;
}

std::string DrawLetters(const MemoryMap& map, const std::vector<MapRow>& rows) {
  std::string text;
  for (const MapRow& row : rows) {
    text += Address(map.cells[row.first]);
    for (std::size_t column = 0; column < row.count; ++column)
      text += CellLetter(map.cells[row.first + column]);
    text += '\n';
  }
  return text;
}

std::string Legend(const MemoryMap& map, bool colours) {
  const MemoryUse total = map.Total();
  std::string text;
  const auto add = [&](std::string_view sign, Colour colour, std::string_view meaning) {
    if (!text.empty()) text += "   ";
    text += colours ? fmt::format("{}██{} {}", Front(colour), kReset, meaning)
                    : fmt::format("{} {}", sign, meaning);
  };
  for (std::size_t node = 0; node < total.nodes.size(); ++node) {
    if (total.nodes[node] == 0) continue;
    add(std::string(1, static_cast<char>('a' + node % 26)), NodeColour(node),
        fmt::format("host node {}", node));
  }
  add(".", kNothingAllocated, "not allocated");
  if (colours) {
    text += fmt::format(
        "   {}▓▓{} private\ndarker: the cell is allocated in part; between two "
        "colours: on several nodes\n",
        Colours(NodeColour(0), kPrivateGround), kReset);
  } else {
    text += "   + several nodes   ? node not known   capital or #: private, at least in part\n";
  }
  return text;
}

std::string BackendTable(const MemoryMap& map) {
  const MemoryUse total = map.Total();
  TextTable table("lrrrr" + std::string(total.nodes.size(), 'r'));
  std::vector<std::string> head = {"BACKEND", "SIZE", "ALLOCATED", "", "PRIVATE"};
  for (std::size_t node = 0; node < total.nodes.size(); ++node)
    head.push_back(fmt::format("NODE {}", node));
  table.Add(std::move(head));
  for (const MapBackend& backend : map.backends) {
    std::vector<std::string> row = {
        backend.id, FormatSize(backend.size), FormatSize(backend.allocated),
        FormatPercent(static_cast<double>(backend.allocated), static_cast<double>(backend.size)),
        FormatSize(backend.private_bytes)};
    for (std::size_t node = 0; node < total.nodes.size(); ++node)
      row.push_back(FormatSize(node < backend.nodes.size() ? backend.nodes[node] : 0));
    table.Add(std::move(row));
  }
  return table.ToString();
}

}  // namespace

std::size_t MapCellsAcross(std::size_t columns) {
  // A power of two, so that rows begin at round addresses; 16 at least, whatever the terminal.
  std::size_t cells = 16;
  while (cells * 2 + kAddressColumns <= columns) cells *= 2;
  return cells;
}

std::string DrawMapAsText(const MemoryMap& map, const MapTextOptions& options) {
  std::string text = MapTitle(map) + "\n";
  if (!map.cells.empty()) {
    std::uint64_t largest = 0;
    for (const MapCell& cell : map.cells) largest = std::max(largest, cell.size);
    text += fmt::format("A cell is {}{}.\n\n", FormatSize(largest),
                        map.sampled ? "; of each some pages were looked at" : "");
  }
  const std::vector<MapRow> rows = LayOut(map, MapCellsAcross(options.columns));
  text += options.colours ? DrawColours(map, rows) : DrawLetters(map, rows);
  return text + "\n" + Legend(map, options.colours) + "\n" + BackendTable(map);
}

}  // namespace holdfast::apps
