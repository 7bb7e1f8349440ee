// SPDX-License-Identifier: Apache-2.0
#include "migration/snapshot_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>

#include "base/hash.h"

namespace holdfast::migration {
namespace {

using ::testing::HasSubstr;

constexpr std::uint64_t kFile = 1 << 20;

SnapshotHeader Header() {
  return {.features = kSnapshotZstd,
          .file_size = kFile,
          .id = {1},
          .directory_offset = kSnapshotHeaderSize,
          .directory_size = 100};
}

// The header with one 64-bit number changed and the checksum right again, as only a program does.
Status Forged(std::size_t at, std::uint64_t value) {
  auto bytes = EncodeHeader(Header());
  for (std::size_t i = 0; i < 8; ++i) bytes[at + i] = static_cast<std::byte>(value >> (8 * i));
  const std::uint64_t hash = Hash64(std::span(bytes).first(kSnapshotHeaderSize - 8));
  for (std::size_t i = 0; i < 8; ++i)
    bytes[kSnapshotHeaderSize - 8 + i] = static_cast<std::byte>(hash >> (8 * i));
  const auto header = DecodeHeader(bytes, kFile);
  if (!header) return Fail(header.error());
  return {};
}

TEST(SnapshotFormat, AHeaderThatSaysTheImpossibleIsRefusedInASentence) {
  ASSERT_TRUE(Forged(24, kFile));
  struct Case {
    std::size_t at;
    std::uint64_t value;
    const char* says;
  };
  const Case cases[] = {
      {0, 0x1122334455667788, "no snapshot of Holdfast"},
      {8, 0x0000'1000'0000'0002, "format version 2"},
      {16, 1U << 5, "features (0x20)"},
      {24, kFile + 1, "should have"},
      {64, 0, "directory lies outside"},
      {64, ~0ULL, "directory lies outside"},
      {72, kFile, "directory lies outside"},
      {72, ~0ULL, "directory lies outside"},
  };
  for (const Case& test : cases) {
    const Status status = Forged(test.at, test.value);
    ASSERT_FALSE(status) << test.says;
    EXPECT_THAT(status.error().message(), HasSubstr(test.says));
  }
}

TEST(SnapshotFormat, ExtentsThatCannotBeAreRefused) {
  constexpr std::uint64_t kBlock = 1ULL << 40;
  const Extent good{.offset = kPageSize,
                    .length = 2 * kPageSize,
                    .file_offset = kSnapshotHeaderSize,
                    .stored = 2 * kPageSize,
                    .hash = 5};
  ASSERT_TRUE(DecodeExtents(EncodeExtents(std::array{good}), kBlock, Header()));
  struct Case {
    const char* what;
    void (*change)(Extent&);
  };
  const Case cases[] = {
      {"whole pages", [](Extent& e) { e.offset += 1; }},
      {"whole pages", [](Extent& e) { e.length = 0; }},
      {"whole pages", [](Extent& e) { e.length = 100; }},
      {"outside its block", [](Extent& e) { e.offset = kBlock; }},
      {"outside its block", [](Extent& e) { e.offset = ~0ULL - kPageSize + 1; }},
      {"outside its block",
       [](Extent& e) {
         e.offset = kBlock - kPageSize;
         e.length = 2 * kPageSize;
       }},
      {"crosses the end", [](Extent& e) { e.offset = kSnapshotChunk - kPageSize; }},
      {"crosses the end",
       [](Extent& e) {
         e.length = 0xfffff000;
         e.offset = 0;
       }},
      {"stored wrongly", [](Extent& e) { e.stored = kPageSize; }},
      {"stored wrongly", [](Extent& e) { e.file_offset += 8; }},
      {"outside the file", [](Extent& e) { e.file_offset = 0; }},
      {"outside the file", [](Extent& e) { e.file_offset = kFile; }},
      {"outside the file", [](Extent& e) { e.file_offset = ~0ULL - kPageSize + 1; }},
      {"no known kind", [](Extent& e) { e.kind = static_cast<Extent::Kind>(3); }},
      {"stores zeroes", [](Extent& e) { e.kind = Extent::Kind::kZero; }},
      {"stored wrongly", [](Extent& e) { e.kind = Extent::Kind::kZstd; }},
  };
  for (const Case& test : cases) {
    Extent extent = good;
    test.change(extent);
    const auto decoded = DecodeExtents(EncodeExtents(std::array{extent}), kBlock, Header());
    ASSERT_FALSE(decoded) << test.what;
    EXPECT_THAT(decoded.error().message(), HasSubstr(test.what));
  }
  const auto twice = DecodeExtents(EncodeExtents(std::array{good, good}), kBlock, Header());
  ASSERT_FALSE(twice);
  EXPECT_THAT(twice.error().message(), HasSubstr("out of order"));
}

TEST(SnapshotFormat, ExtentsOfAPartLieInIt) {
  const Extent extent{.offset = kSnapshotPart, .length = kPageSize, .kind = Extent::Kind::kZero};
  const auto bytes = EncodeExtents(std::array{extent});
  EXPECT_TRUE(DecodeExtents(bytes, 2 * kSnapshotPart, Header(), kSnapshotPart));
  EXPECT_FALSE(DecodeExtents(bytes, kSnapshotPart, Header()));
  EXPECT_FALSE(DecodeExtents(bytes, 3 * kSnapshotPart, Header(), 2 * kSnapshotPart));
}

TEST(SnapshotFormat, PartsThatCannotBeAreRefused) {
  constexpr std::uint64_t kBlock = kSnapshotPart + kPageSize;  // two parts, one of them short
  const FilePiece good{kSnapshotHeaderSize, 5 * kExtentSize, 7};
  const auto decoded = DecodeParts(EncodeParts(std::array{good, FilePiece{}}), kBlock, Header());
  ASSERT_TRUE(decoded);
  EXPECT_EQ(decoded->at(0).offset, good.offset);
  EXPECT_EQ(decoded->at(0).size, good.size);
  EXPECT_EQ(decoded->at(0).hash, good.hash);
  EXPECT_EQ(decoded->at(1).size, 0U);
  EXPECT_FALSE(DecodeParts(EncodeParts(std::array{good}), kBlock, Header()));
  EXPECT_FALSE(DecodeParts(EncodeParts(std::array{good, good, good}), kBlock, Header()));
  EXPECT_FALSE(DecodeParts(EncodeParts(std::array{good}), ~0ULL - kPageSize + 1, Header()));
  const FilePiece wrong[] = {
      {kSnapshotHeaderSize, kExtentSize + 1, 0},
      {kSnapshotHeaderSize, (kSnapshotPart / kPageSize + 1) * kExtentSize, 0},
      {0, kExtentSize, 0},
      {kFile, kExtentSize, 0},
      {~0ULL, kExtentSize, 0},
  };
  for (const FilePiece& piece : wrong) {
    const auto refused = DecodeParts(EncodeParts(std::array{good, piece}), kBlock, Header());
    ASSERT_FALSE(refused) << piece.offset << " " << piece.size;
    EXPECT_THAT(refused.error().message(), HasSubstr("from 0x1000000 on cannot be"));
  }
}

TEST(SnapshotFormat, ADirectoryKeepsAllItHas) {
  const SnapshotDirectory directory{
      .creator = "holdfast 9",
      .created = 1234,
      .name = "vm",
      .running = true,
      .parent_file = "parent",
      .command_line = {"-m", "1G"},
      .sections = {{"rtc", 3, {kSnapshotHeaderSize, 10, 7}}},
      .blocks = {{"pc.ram", kPageSize, {{kSnapshotHeaderSize, kExtentSize, 9}}}}};
  const auto decoded = DecodeDirectory(EncodeDirectory(directory), Header()).value();
  EXPECT_EQ(decoded.command_line, directory.command_line);
  EXPECT_EQ(decoded.sections[0].version, 3U);
  EXPECT_EQ(decoded.blocks[0].layers[0].hash, 9U);
  EXPECT_EQ(EncodeDirectory(decoded), EncodeDirectory(directory));
}

TEST(SnapshotFormat, ADirectoryThatPointsOutsideTheFileIsRefused) {
  struct Case {
    const char* says;
    SnapshotDirectory directory;
  };
  const Case cases[] = {
      {"its section 'rtc' lies outside", {.sections = {{"rtc", 1, {kFile, 1, 0}}}}},
      {"its section 'rtc' lies outside", {.sections = {{"rtc", 1, {0, 1, 0}}}}},
      {"its section 'rtc' lies outside",
       {.sections = {{"rtc", 1, {kSnapshotHeaderSize, ~0ULL, 0}}}}},
      {"is not whole pages", {.blocks = {{"ram", 5, {}}}}},
      {"is not whole pages", {.blocks = {{"ram", 0, {}}}}},
      {"a table of its memory 'ram' is cut short",
       {.blocks = {{"ram", kPageSize, {{kSnapshotHeaderSize, 39, 0}}}}}},
      {"a table of its memory 'ram' lies outside",
       {.blocks = {{"ram", kPageSize, {{kFile, kExtentSize, 0}}}}}},
  };
  for (const Case& test : cases) {
    const auto decoded = DecodeDirectory(EncodeDirectory(test.directory), Header());
    ASSERT_FALSE(decoded) << test.says;
    EXPECT_THAT(decoded.error().message(), HasSubstr(test.says));
  }
}

}  // namespace
}  // namespace holdfast::migration
