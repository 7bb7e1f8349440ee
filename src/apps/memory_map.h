// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <holdfast/error.h>
#include <nlohmann/json_fwd.hpp>

namespace holdfast::apps {

/// Memory of which something is counted, in bytes.
struct MemoryUse {
  std::uint64_t size = 0;
  std::uint64_t allocated = 0;
  std::uint64_t private_bytes = 0;        ///< only the guest may touch them
  std::vector<std::uint64_t> nodes = {};  ///< of the allocated, by host node

  /// Adds all but the size.
  void Add(const MemoryUse& other);
};

/// A range of guest physical memory.
struct MapCell : MemoryUse {
  std::uint64_t base = 0;
};
struct MapBackend : MemoryUse {
  std::string id;
};

/// What `holdfast-query-memory-map` says.
struct MemoryMap {
  std::string name = {};  ///< of the VM, may be empty
  bool sampled = false;   ///< some cells were not looked at page by page
  std::vector<MapCell> cells = {};
  std::vector<MapBackend> backends = {};

  MemoryUse Total() const;
};

/// Reads the command's answer. @return kMalformed naming the member that is wrong: cells must lie
/// one behind the other and count no more than they hold
Result<MemoryMap> ParseMemoryMap(const nlohmann::ordered_json& answer);

/// A row of the picture: cells without a gap between them.
struct MapRow {
  std::size_t first = 0;
  std::size_t count = 0;
  bool continues = false;  ///< the row before
};

/// Lays the cells out in rows of at most `columns`; memory behind a gap begins a new row.
std::vector<MapRow> LayOut(const MemoryMap& map, std::size_t columns);

struct Colour {
  std::uint8_t red = 0;
  std::uint8_t green = 0;
  std::uint8_t blue = 0;
  bool operator==(const Colour&) const = default;
  auto operator<=>(const Colour&) const = default;
};

inline constexpr Colour kNothingAllocated{52, 52, 60};

/// What stands for a host node; after the eighth they repeat.
Colour NodeColour(std::size_t node);
/// The node's colour, the darker the less of the cell is allocated; in nine steps, so that a
/// picture has few colours.
Colour NodeShade(const MemoryUse& cell, std::size_t node);
/// The colour of a whole cell: those of its nodes mixed, in quarters.
Colour CellColour(const MemoryUse& cell);
/// The nearest of a terminal's 256 colours.
std::uint8_t TerminalColour(Colour colour);

/// How the map is drawn as text.
struct MapTextOptions {
  std::size_t columns = 80;
  bool colours = false;  ///< otherwise letters, one a cell
};
/// How many cells of the map a row of text with so many columns holds.
std::size_t MapCellsAcross(std::size_t columns);
/// The map as text: a title, the picture, its legend, a table of the backends.
std::string DrawMapAsText(const MemoryMap& map, const MapTextOptions& options);

inline constexpr std::size_t kMapPictureWidth = 1024;
/// How many cells a row of the picture holds.
inline constexpr std::size_t kMapPictureColumns = 128;
/// The map as PNG, `width` pixels wide (at least 400).
std::string DrawMapAsPng(const MemoryMap& map, std::size_t width);

/// "Guest memory of vm1: 1.5 GiB of 4 GiB allocated (37 %), 1 MiB private".
std::string MapTitle(const MemoryMap& map);

}  // namespace holdfast::apps
