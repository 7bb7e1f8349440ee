// SPDX-License-Identifier: Apache-2.0
#include "apps/memory_map.h"

#include <fmt/format.h>
#include <holdfast/units.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include <nlohmann/json.hpp>

#include "apps/json_read.h"
#include "apps/qmp_client.h"
#include "apps/text_table.h"

namespace holdfast::apps {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMostCells = 1U << 17;
constexpr std::size_t kMostNodes = 1024;

tl::unexpected<Error> Wrong(std::string_view member) {
  return Fail(Errc::kMalformed,
              fmt::format("the memory map of the virtual machine has a wrong '{}'", member),
              "holdfast and holdfastctl may be of different versions.");
}

Status ReadUse(const Json& object, MemoryUse& use) {
  const auto size = CountMember(object, "size");
  const auto allocated = CountMember(object, "allocated");
  const auto private_bytes = CountMember(object, "private");
  // Sizes stay so small that sums of 2^17 of them do not wrap.
  if (!size || *size == 0 || *size > (std::uint64_t{1} << 46)) return Wrong("size");
  if (!allocated || *allocated > *size) return Wrong("allocated");
  if (!private_bytes || *private_bytes > *size) return Wrong("private");
  use.size = *size;
  use.allocated = *allocated;
  use.private_bytes = *private_bytes;
  const Json* nodes = FindMember(object, "nodes");
  if (nodes == nullptr || !nodes->is_array() || nodes->size() > kMostNodes) return Wrong("nodes");
  std::uint64_t placed = 0;
  for (const Json& bytes : *nodes) {
    if (!bytes.is_number_unsigned() || bytes.get<std::uint64_t>() > *size) return Wrong("nodes");
    use.nodes.push_back(bytes.get<std::uint64_t>());
    placed += use.nodes.back();
  }
  if (placed > *allocated) return Wrong("nodes");
  return {};
}

// A colour between `from` and `to`.
Colour Mix(Colour from, Colour to, double part) {
  const auto mix = [part](std::uint8_t a, std::uint8_t b) {
    return static_cast<std::uint8_t>(std::lround(a + (b - a) * part));
  };
  return {mix(from.red, to.red), mix(from.green, to.green), mix(from.blue, to.blue)};
}

double Share(std::uint64_t part, std::uint64_t whole) {
  return whole == 0 ? 0 : static_cast<double>(part) / static_cast<double>(whole);
}

// `colour`, the darker the less of the cell is allocated; one page is still seen.
Colour Shade(const MemoryUse& cell, Colour colour) {
  const double shade = std::ceil(Share(cell.allocated, cell.size) * 8) / 8;
  return Mix(kNothingAllocated, colour, 0.3 + 0.7 * shade);
}

}  // namespace

void MemoryUse::Add(const MemoryUse& other) {
  allocated += other.allocated;
  private_bytes += other.private_bytes;
  if (nodes.size() < other.nodes.size()) nodes.resize(other.nodes.size());
  for (std::size_t i = 0; i < other.nodes.size(); ++i) nodes[i] += other.nodes[i];
}

MemoryUse MemoryMap::Total() const {
  MemoryUse total;
  for (const MapCell& cell : cells) {
    total.size += cell.size;
    total.Add(cell);
  }
  return total;
}

Result<MemoryMap> ParseMemoryMap(const Json& answer) {
  MemoryMap map;
  const Json* sampled = FindMember(answer, "sampled");
  map.sampled = sampled != nullptr && sampled->is_boolean() && sampled->get<bool>();
  const Json* cells = FindMember(answer, "cells");
  if (cells == nullptr || !cells->is_array() || cells->size() > kMostCells) return Wrong("cells");
  std::uint64_t end = 0;
  for (const Json& entry : *cells) {
    MapCell cell;
    HF_TRY_STATUS(ReadUse(entry, cell));
    const auto base = CountMember(entry, "gpa");
    if (!base || *base < end) return Wrong("gpa");
    cell.base = *base;
    const auto next = CheckedAdd(cell.base, cell.size);
    if (!next) return Wrong("gpa");
    end = *next;
    map.cells.push_back(std::move(cell));
  }
  const Json* backends = FindMember(answer, "backends");
  if (backends == nullptr || !backends->is_array() || backends->size() > kMostNodes)
    return Wrong("backends");
  for (const Json& entry : *backends) {
    MapBackend backend;
    HF_TRY_STATUS(ReadUse(entry, backend));
    const Json* id = FindMember(entry, "id");
    if (id == nullptr || !id->is_string()) return Wrong("id");
    backend.id = Printable(id->get<std::string>());
    map.backends.push_back(std::move(backend));
  }
  return map;
}

std::vector<MapRow> LayOut(const MemoryMap& map, std::size_t columns) {
  std::vector<MapRow> rows;
  std::uint64_t end = std::numeric_limits<std::uint64_t>::max();
  for (std::size_t i = 0; i < map.cells.size(); ++i) {
    const MapCell& cell = map.cells[i];
    const bool adjacent = cell.base == end;
    if (!adjacent || rows.back().count == columns)
      rows.push_back({.first = i, .count = 0, .continues = adjacent});
    ++rows.back().count;
    end = cell.base + cell.size;
  }
  return rows;
}

Colour NodeColour(std::size_t node) {
  // The first two are mixed most often, and must not give a grey.
  static constexpr std::array<Colour, 8> kColours = {{{70, 140, 250},
                                                      {100, 210, 70},
                                                      {250, 150, 50},
                                                      {225, 90, 190},
                                                      {235, 220, 80},
                                                      {160, 100, 60},
                                                      {240, 80, 80},
                                                      {165, 130, 245}}};
  return kColours.at(node % kColours.size());
}

Colour NodeShade(const MemoryUse& cell, std::size_t node) {
  return Shade(cell, NodeColour(node));
}

Colour CellColour(const MemoryUse& cell) {
  if (cell.allocated == 0) return kNothingAllocated;
  constexpr Colour kUnknownNode{185, 185, 185};
  Colour colour = kUnknownNode;
  std::uint64_t placed = 0;
  for (std::size_t node = 0; node < cell.nodes.size(); ++node) {
    if (cell.nodes[node] == 0) continue;
    placed += cell.nodes[node];
    const double part = std::round(Share(cell.nodes[node], placed) * 4) / 4;
    colour = placed == cell.nodes[node] ? NodeColour(node) : Mix(colour, NodeColour(node), part);
  }
  return Shade(cell, colour);
}

std::uint8_t TerminalColour(Colour colour) {
  // A cube of 6 x 6 x 6 from 16 on, then 24 greys.
  static constexpr std::array<int, 6> kLevels = {0, 95, 135, 175, 215, 255};
  const auto level = [](int value) {
    int best = 0;
    for (int i = 1; i < 6; ++i)
      if (std::abs(kLevels.at(static_cast<std::size_t>(i)) - value) <
          std::abs(kLevels.at(static_cast<std::size_t>(best)) - value))
        best = i;
    return best;
  };
  const auto distance = [&](int red, int green, int blue) {
    const int r = colour.red - red;
    const int g = colour.green - green;
    const int b = colour.blue - blue;
    return r * r + g * g + b * b;
  };
  const int red = level(colour.red);
  const int green = level(colour.green);
  const int blue = level(colour.blue);
  const auto of = [](int index) { return kLevels.at(static_cast<std::size_t>(index)); };
  const int average = (colour.red + colour.green + colour.blue) / 3;
  const int grey = std::clamp((average - 3) / 10, 0, 23);
  const int grey_value = 8 + 10 * grey;
  if (distance(grey_value, grey_value, grey_value) < distance(of(red), of(green), of(blue)))
    return static_cast<std::uint8_t>(232 + grey);
  return static_cast<std::uint8_t>(16 + 36 * red + 6 * green + blue);
}

std::string MapTitle(const MemoryMap& map) {
  const MemoryUse total = map.Total();
  const std::string part =
      FormatPercent(static_cast<double>(total.allocated), static_cast<double>(total.size));
  return fmt::format(
      "Guest memory{}{}: {}{} of {} allocated ({}), {}", map.name.empty() ? "" : " of ", map.name,
      map.sampled ? "about " : "", FormatSize(total.allocated), FormatSize(total.size), part,
      total.private_bytes == 0 ? "all shared" : FormatSize(total.private_bytes) + " private");
}

}  // namespace holdfast::apps
