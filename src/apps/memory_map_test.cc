// SPDX-License-Identifier: Apache-2.0
#include "apps/memory_map.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>

#include <nlohmann/json.hpp>
#include <sstream>

namespace holdfast::apps {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::HasSubstr;
using ::testing::Not;

MapCell Cell(std::uint64_t base, std::uint64_t size, std::vector<std::uint64_t> nodes,
             std::uint64_t private_bytes = 0) {
  MapCell cell;
  cell.base = base;
  cell.size = size;
  for (const std::uint64_t bytes : nodes) cell.allocated += bytes;
  cell.nodes = std::move(nodes);
  cell.private_bytes = private_bytes;
  return cell;
}

// 20 cells of 1 MiB, a hole, one cell above it.
MemoryMap Sample() {
  MemoryMap map;
  map.name = "vm1";
  for (std::uint64_t i = 0; i < 20; ++i) {
    const std::uint64_t base = i * kMiB;
    if (i < 4) map.cells.push_back(Cell(base, kMiB, {kMiB}));
    if (i >= 4 && i < 6) map.cells.push_back(Cell(base, kMiB, {0, kMiB / 8}));
    if (i >= 6 && i < 8) map.cells.push_back(Cell(base, kMiB, {kMiB / 2, kMiB / 2}));
    if (i >= 8 && i < 10) map.cells.push_back(Cell(base, kMiB, {0, kMiB}, kMiB));
    if (i == 10) map.cells.push_back(Cell(base, kMiB, {kMiB / 2, kMiB / 2}, kPageSize));
    if (i > 10) map.cells.push_back(Cell(base, kMiB, {}));
  }
  map.cells.push_back(Cell(4 * kGiB, kMiB, {}, kMiB));
  MapBackend backend;
  backend.id = "ram0";
  backend.size = 21 * kMiB;
  backend.Add(map.Total());
  map.backends.push_back(backend);
  return map;
}

TEST(MemoryMapTest, ReadsWhatTheCommandReturns) {
  const auto map = ParseMemoryMap(Json::parse(R"({"size": 8192, "sampled": true,
    "cells": [{"gpa": 0, "size": 4096, "allocated": 4096, "private": 0, "nodes": [0, 4096]},
              {"gpa": 8192, "size": 4096, "allocated": 0, "private": 4096, "nodes": []}],
    "backends": [{"id": "m", "size": 8192, "allocated": 4096, "private": 4096, "nodes": [0, 1]}]
  })"));
  ASSERT_TRUE(map) << map.error().ToString();
  EXPECT_TRUE(map->sampled);
  ASSERT_EQ(map->cells.size(), 2U);
  EXPECT_EQ(map->cells[0].nodes[1], 4096U);
  EXPECT_EQ(map->cells[1].base, 8192U);
  EXPECT_EQ(map->Total().allocated, 4096U);
  EXPECT_EQ(map->backends[0].id, "m");
}

TEST(MemoryMapTest, AHostileMapIsRefusedAndTheMemberNamed) {
  constexpr const char* kGood =
      R"({"gpa": 0, "size": 4096, "allocated": 0, "private": 0, "nodes": []})";
  const struct {
    std::string map;
    const char* member;
  } cases[] = {
      {"3", "cells"},
      {R"({"cells": 3})", "cells"},
      {R"({"cells": [3]})", "size"},
      {R"({"cells": [{"gpa": 0, "size": 0, "allocated": 0, "private": 0, "nodes": []}]})", "size"},
      {R"({"cells": [{"gpa": 0, "size": -1, "allocated": 0, "private": 0, "nodes": []}]})", "size"},
      {R"({"cells": [{"gpa": 0, "size": 1, "allocated": 2, "private": 0, "nodes": []}]})",
       "allocated"},
      {R"({"cells": [{"gpa": 0, "size": 1, "allocated": 0, "private": 2, "nodes": []}]})",
       "private"},
      {R"({"cells": [{"gpa": 0, "size": 2, "allocated": 1, "private": 0, "nodes": [2]}]})",
       "nodes"},
      {R"({"cells": [{"gpa": 0, "size": 1, "allocated": 0, "private": 0, "nodes": 1}]})", "nodes"},
      {R"({"cells": [{"gpa": 18446744073709551615, "size": 2, "allocated": 0, "private": 0,)"
       R"( "nodes": []}]})",
       "gpa"},
      {fmt::format(R"({{"cells": [{0}, {0}]}})", kGood), "gpa"},
      {fmt::format(R"({{"cells": [{}]}})", kGood), "backends"},
      {fmt::format(R"({{"cells": [], "backends": [{}]}})", kGood), "id"},
  };
  for (const auto& c : cases) {
    const auto map = ParseMemoryMap(Json::parse(c.map));
    ASSERT_FALSE(map) << c.map;
    EXPECT_THAT(map.error().message(), HasSubstr(fmt::format("'{}'", c.member))) << c.map;
  }
}

TEST(MemoryMapTest, MemoryBehindAHoleBeginsARow) {
  const auto rows = LayOut(Sample(), 16);
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].count, 16U);
  EXPECT_FALSE(rows[0].continues);
  EXPECT_EQ(rows[1].count, 4U);
  EXPECT_TRUE(rows[1].continues);
  EXPECT_EQ(rows[2].first, 20U);
  EXPECT_FALSE(rows[2].continues);
  EXPECT_TRUE(LayOut({}, 16).empty());
}

TEST(MemoryMapTest, LettersTellNodeAndPrivate) {
  const std::string text = DrawMapAsText(Sample(), {.columns = 40, .colours = false});
  EXPECT_THAT(text, HasSubstr("Guest memory of vm1: 9.25 MiB of 21 MiB allocated (44 %), "));
  EXPECT_THAT(text, HasSubstr("\n0x0           aaaabb++BB#.....\n"
                              "0x1000000     ....\n"
                              "0x100000000   _\n"));
  EXPECT_THAT(text, HasSubstr("a host node 0   b host node 1   . not allocated"));
  EXPECT_THAT(text, HasSubstr("ram0     21 MiB   9.25 MiB  44 %"));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

TEST(MemoryMapTest, ColoursPutTwoCellsIntoACharacterAndAreResetOnEachLine) {
  const std::string text = DrawMapAsText(Sample(), {.columns = 40, .colours = true});
  std::istringstream lines(text);
  int picture_lines = 0;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("0x")) continue;
    ++picture_lines;
    EXPECT_TRUE(line.ends_with("\x1b[0m")) << line;
  }
  EXPECT_EQ(picture_lines, 2);
  EXPECT_THAT(text, HasSubstr("▀"));
  EXPECT_THAT(text, HasSubstr("▓"));
}

TEST(MemoryMapTest, TheShadeTellsHowMuchAndTheColourWhere) {
  const Colour full = CellColour(Cell(0, kMiB, {kMiB}));
  EXPECT_EQ(full, NodeColour(0));
  EXPECT_EQ(CellColour(Cell(0, kMiB, {0, kMiB})), NodeColour(1));
  EXPECT_EQ(CellColour(Cell(0, kMiB, {})), kNothingAllocated);
  // One page of many is seen.
  EXPECT_NE(CellColour(Cell(0, 1 * kGiB, {kPageSize})), kNothingAllocated);
  const Colour half = CellColour(Cell(0, kMiB, {kMiB / 2}));
  EXPECT_LT(half.blue, full.blue);
  EXPECT_GT(half.blue, kNothingAllocated.blue);
  const Colour both = CellColour(Cell(0, kMiB, {kMiB / 2, kMiB / 2}));
  EXPECT_NE(both, NodeColour(0));
  EXPECT_NE(both, NodeColour(1));
}

TEST(MemoryMapTest, TerminalColoursAreTheNearest) {
  EXPECT_EQ(TerminalColour({0, 0, 0}), 16);
  EXPECT_EQ(TerminalColour({255, 255, 255}), 231);
  EXPECT_EQ(TerminalColour({255, 0, 0}), 196);
  EXPECT_EQ(TerminalColour({128, 128, 128}), 244);
}

TEST(MemoryMapTest, EightyColumnsHoldSixtyFourCells) {
  EXPECT_EQ(MapCellsAcross(80), 64U);
  EXPECT_EQ(MapCellsAcross(200), 128U);
  EXPECT_EQ(MapCellsAcross(1), 16U);
}

TEST(MemoryMapTest, ThePictureIsAPngOfAnyWidth) {
  for (const std::size_t width : {std::size_t{1}, kMapPictureWidth, std::size_t{3000}}) {
    const std::string file = DrawMapAsPng(Sample(), width);
    EXPECT_TRUE(file.starts_with("\x89PNG"));
    EXPECT_THAT(file, HasSubstr("PLTE"));  // few colours, small file
    EXPECT_LT(file.size(), 200000U);
  }
}

}  // namespace
}  // namespace holdfast::apps
