// SPDX-License-Identifier: Apache-2.0
// Snapshot files from the writer to the reader.
#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <vector>

#include "migration/snapshot_reader.h"
#include "migration/snapshot_test_support.h"
#include "migration/snapshot_writer.h"

namespace holdfast::migration {
namespace {

using ::testing::HasSubstr;

TEST_F(SnapshotFileTest, MemoryAndStateComeBackAsTheyWere) {
  for (const bool zstd : {false, true}) {
    const Memory memory = Contents();
    Write(PathOf("a"), memory, zstd);
    EXPECT_EQ(ReadAll(PathOf("a")).value(), memory);
    const SnapshotFile file = SnapshotFile::Open(PathOf("a")).value();
    EXPECT_TRUE(file.directory().running);
    const auto sections = file.ReadSections().value();
    ASSERT_EQ(sections.size(), 1U);
    EXPECT_EQ(sections[0].name, "rtc");
    EXPECT_EQ(sections[0].bytes, Memory{std::byte{7}});
  }
}

TEST_F(SnapshotFileTest, ZeroPagesTakeNoSpace) {
  Memory memory(kSize);
  Scribble(memory, 20);
  Write(PathOf("a"), memory);
  EXPECT_EQ(SnapshotFile::Open(PathOf("a")).value().Stored().value(), kPageSize);
  const SnapshotChain chain = SnapshotChain::Open(PathOf("a")).value();
  EXPECT_FALSE(chain.HasChunk(0, 0));
  EXPECT_TRUE(chain.HasChunk(0, kSnapshotChunk));
}

TEST_F(SnapshotFileTest, CompressibleMemoryIsSmallerWithZstd) {
  const Memory memory(kSize, std::byte{0x5a});
  Write(PathOf("a"), memory, true);
  EXPECT_LT(SnapshotFile::Open(PathOf("a")).value().Stored().value(), kSize / 50);
  EXPECT_EQ(ReadAll(PathOf("a")).value(), memory);
}

TEST_F(SnapshotFileTest, AChunkWrittenAgainCountsOnce) {
  Memory memory = Contents();
  auto writer = Start({.path = PathOf("a")});
  for (int round = 0; round < 3; ++round) {
    Scribble(memory, 17);
    const auto chunk = ChunkOf(memory, kSnapshotChunk);
    ASSERT_TRUE(writer->WriteChunk(0, kSnapshotChunk, chunk, AllOf(chunk.size())));
  }
  Finish(*writer);
  const Memory read = ReadAll(PathOf("a")).value();
  const auto chunk = ChunkOf(memory, kSnapshotChunk);
  EXPECT_TRUE(std::equal(chunk.begin(), chunk.end(), read.begin() + kSnapshotChunk));
  // The pages that are not zero, once each, and room for tables.
  EXPECT_LE(std::filesystem::file_size(PathOf("a")), 16 * kPageSize);
}

TEST_F(SnapshotFileTest, WhatWasRewrittenHidesWhatWasThereZeroesToo) {
  const Memory before = Contents();
  Memory after = before;
  Scribble(after, 1);                                                   // had something
  Scribble(after, 3);                                                   // was zero
  std::fill_n(after.begin() + 2 * kPageSize, kPageSize, std::byte{0});  // becomes zero
  auto writer = Start({.path = PathOf("a")});
  for (std::uint64_t at = 0; at < kSize; at += kSnapshotChunk) {
    const auto chunk = ChunkOf(before, at);
    ASSERT_TRUE(writer->WriteChunk(0, at, chunk, AllOf(chunk.size())));
  }
  ASSERT_TRUE(
      writer->WriteChunk(0, 0, ChunkOf(after, 0), 0b1110, SnapshotWriter::Layer::kRewritten));
  Finish(*writer);
  EXPECT_EQ(ReadAll(PathOf("a")).value(), after);
}

TEST_F(SnapshotFileTest, AChainOfTwentyGivesBackEachState) {
  std::vector<Memory> states{Contents()};
  SnapshotId parent = Write(PathOf("0"), states[0]);
  for (int i = 1; i <= 20; ++i) {
    Memory next = states.back();
    for (int change = 0; change < 5; ++change) Scribble(next, random_() % (kSize / kPageSize));
    std::fill_n(
        next.begin() + static_cast<std::ptrdiff_t>(random_() % (kSize / kPageSize) * kPageSize),
        kPageSize, std::byte{0});
    parent =
        WriteDiff(PathOf(std::to_string(i)), parent, std::to_string(i - 1), states.back(), next);
    states.push_back(std::move(next));
  }
  for (std::size_t i = 0; i < states.size(); ++i)
    EXPECT_EQ(ReadAll(PathOf(std::to_string(i))).value(), states[i]) << i;
}

TEST_F(SnapshotFileTest, AParentThatIsAnotherSnapshotIsRefusedByBothNames) {
  const Memory memory = Contents();
  const SnapshotId parent = Write(PathOf("full"), memory);
  Memory after = memory;
  Scribble(after, 4);
  WriteDiff(PathOf("diff"), parent, "full", memory, after);
  Write(PathOf("full"), memory);  // the same memory, and not the same snapshot
  const auto chain = SnapshotChain::Open(PathOf("diff"));
  ASSERT_FALSE(chain);
  EXPECT_THAT(chain.error().message(), HasSubstr(ToString(parent)));
  EXPECT_THAT(chain.error().message(), HasSubstr(PathOf("full")));
  ASSERT_EQ(::unlink(PathOf("full").c_str()), 0);
  EXPECT_THAT(SnapshotChain::Open(PathOf("diff")).error().message(), HasSubstr("needs its parent"));
}

TEST_F(SnapshotFileTest, WithoutAnEndTheOldFileStaysAndNothingElseIsLeft) {
  const Memory memory = Contents();
  Write(PathOf("a"), memory);
  {
    auto writer = Start({.path = PathOf("a")});
    ASSERT_TRUE(writer->WriteChunk(0, 0, ChunkOf(Memory(kSize, std::byte{1}), 0), 0xffff));
  }
  EXPECT_EQ(ReadAll(PathOf("a")).value(), memory);
  int files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder_)) ++files;
  EXPECT_EQ(files, 1);
}

TEST_F(SnapshotFileTest, AFullDiskIsAnErrorThatNamesTheFile) {
  auto writer = SnapshotWriter::Create({.path = "/dev/full"}, {{"pc.ram", kSize}});
  ASSERT_FALSE(writer);
  EXPECT_THAT(writer.error().message(), HasSubstr("'/dev/full'"));
  writer = SnapshotWriter::Create({.path = PathOf("no/such/folder")}, {{"pc.ram", kSize}});
  ASSERT_FALSE(writer);
  EXPECT_EQ(writer.error().code(), Errc::kNotFound);
}

// As on a disk that is full in the middle of it.
TEST_F(SnapshotFileTest, AFileThatCannotGrowIsAnErrorAndTheOldOneStays) {
  const Memory memory = Contents();
  Write(PathOf("a"), memory);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  const rlimit small{.rlim_cur = 128 * kKiB, .rlim_max = before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  Status status;
  {
    auto writer = Start({.path = PathOf("a")});
    for (std::uint64_t at = 0; at < kSize && status; at += kSnapshotChunk) {
      const auto chunk = ChunkOf(memory, at);
      status = writer->WriteChunk(0, at, chunk, AllOf(chunk.size()));
    }
  }
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, handler);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message(), HasSubstr(PathOf("a")));
  EXPECT_EQ(ReadAll(PathOf("a")).value(), memory);
}

// Every byte of what is not memory, and thousands anywhere: refused, or of no consequence; never
// another memory than the one that was saved.
TEST_F(SnapshotFileTest, NoDamageIsEverReadAsSomethingElse) {
  const int random_flips = std::getenv("HOLDFAST_TEST_LONG") != nullptr ? 10000 : 500;
  for (const bool zstd : {false, true}) {
    const Memory memory = Contents(4);
    Write(PathOf("a"), memory, zstd);
    std::vector<char> bytes(std::filesystem::file_size(PathOf("a")));
    std::ifstream(PathOf("a"), std::ios::binary)
        .read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    const SnapshotFile file = SnapshotFile::Open(PathOf("a")).value();
    std::vector<std::size_t> places;
    for (std::size_t at = 0; at < 96; ++at) places.push_back(at);
    for (std::size_t at = file.header().directory_offset; at < bytes.size(); ++at)
      places.push_back(at);
    for (int i = 0; i < random_flips; ++i) places.push_back(random_() % bytes.size());
    const UniqueFd fd(::open(PathOf("a").c_str(), O_RDWR | O_CLOEXEC));
    ASSERT_TRUE(fd.valid());
    int refused = 0;
    for (const std::size_t at : places) {
      const char flipped = static_cast<char>(bytes[at] ^ (1 << random_() % 8));
      ASSERT_EQ(::pwrite(fd.get(), &flipped, 1, static_cast<off_t>(at)), 1);
      const auto read = ReadAll(PathOf("a"));
      if (read) {
        EXPECT_EQ(*read, memory) << at;  // padding
      } else {
        EXPECT_THAT(read.error().message(), HasSubstr(PathOf("a")));
        ++refused;
      }
      ASSERT_EQ(::pwrite(fd.get(), &bytes[at], 1, static_cast<off_t>(at)), 1);
    }
    EXPECT_GT(refused, static_cast<int>(places.size()) * 3 / 4);
  }
}

// A restore reads the tables of the memory that it needs, so that damage elsewhere is found there.
TEST_F(SnapshotFileTest, ADamagedTableIsFoundWhereItsMemoryIsRead) {
  constexpr std::uint64_t kLarge = 2 * kSnapshotPart + kPageSize;
  const Memory chunk(kSnapshotChunk, std::byte{7});
  auto writer = SnapshotWriter::Create({.path = PathOf("a")}, {{"pc.ram", kLarge}}).value();
  ASSERT_TRUE(writer->WriteChunk(0, 0, chunk, ~0U));
  ASSERT_TRUE(writer->WriteChunk(0, 2 * kSnapshotPart, std::span(chunk).first(kPageSize), 1));
  Finish(*writer);
  std::uint64_t table = 0;  // of the last part: in front of the table of parts
  {
    const SnapshotChain chain = SnapshotChain::Open(PathOf("a")).value();
    table = chain.blocks()[0].layers[0].offset - kExtentSize;
    EXPECT_EQ(chain.Chunks().size(), 2U);
    EXPECT_FALSE(chain.HasChunk(0, kSnapshotPart));
  }
  const UniqueFd fd(::open(PathOf("a").c_str(), O_RDWR | O_CLOEXEC));
  char byte = 0;
  ASSERT_EQ(::pread(fd.get(), &byte, 1, static_cast<off_t>(table)), 1);
  const char flipped = static_cast<char>(byte ^ 1);
  ASSERT_EQ(::pwrite(fd.get(), &flipped, 1, static_cast<off_t>(table)), 1);

  const SnapshotChain chain = SnapshotChain::Open(PathOf("a")).value();
  Memory read(kSnapshotChunk);
  EXPECT_TRUE(chain.ReadChunk(0, 0, read));
  EXPECT_EQ(read, chunk);
  EXPECT_TRUE(chain.ReadChunk(0, kSnapshotPart, read));
  EXPECT_EQ(read, Memory(kSnapshotChunk));
  EXPECT_TRUE(chain.HasChunk(0, 2 * kSnapshotPart)) << "nothing is taken for zero";
  const auto page = std::span(read).first(kPageSize);
  const Status refused = chain.ReadChunk(0, 2 * kSnapshotPart, page);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), HasSubstr(PathOf("a")));
  EXPECT_THAT(refused.error().message(), HasSubstr("at 0x2000000"));
  EXPECT_THAT(refused.error().message(), HasSubstr("its table"));
  EXPECT_FALSE(chain.newest().Stored());
  // A failed read is not remembered.
  ASSERT_EQ(::pwrite(fd.get(), &byte, 1, static_cast<off_t>(table)), 1);
  EXPECT_TRUE(chain.ReadChunk(0, 2 * kSnapshotPart, page));
}

TEST_F(SnapshotFileTest, AFileCutShortAnywhereIsRefused) {
  Write(PathOf("a"), Contents());
  const auto whole = std::filesystem::file_size(PathOf("a"));
  for (std::uint64_t size = 0; size < whole; size += 997) {
    std::filesystem::copy_file(PathOf("a"), PathOf("b"),
                               std::filesystem::copy_options::overwrite_existing);
    ASSERT_EQ(::truncate(PathOf("b").c_str(), static_cast<off_t>(size)), 0);
    EXPECT_FALSE(ReadAll(PathOf("b"))) << size;
  }
}

}  // namespace
}  // namespace holdfast::migration
