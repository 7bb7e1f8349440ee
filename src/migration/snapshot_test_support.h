// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>
#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "migration/snapshot_reader.h"
#include "migration/snapshot_writer.h"

namespace holdfast::migration {

using Memory = std::vector<std::byte>;

inline constexpr std::uint64_t kSize =
    5 * kSnapshotChunk + 3 * kPageSize;  // with a short last chunk

/// Snapshots of one block of memory, `pc.ram`, in a folder of the test's own.
class SnapshotFileTest : public ::testing::Test {
 protected:
  SnapshotFileTest() {
    std::string name = (std::filesystem::temp_directory_path() / "hf-snapshot-XXXXXX").string();
    folder_ = ::mkdtemp(name.data());
  }
  ~SnapshotFileTest() override { std::filesystem::remove_all(folder_); }

  std::string PathOf(std::string_view name) const { return fmt::format("{}/{}", folder_, name); }

  // Pages of random bytes, zeroes between them.
  Memory Contents(std::uint64_t pages_per_zero = 3) {
    Memory memory(kSize);
    for (std::uint64_t page = 0; page < kSize / kPageSize; ++page) {
      if (page % pages_per_zero != 0) Scribble(memory, page);
    }
    return memory;
  }
  void Scribble(Memory& memory, std::uint64_t page) {
    for (std::uint64_t i = 0; i < kPageSize; ++i)
      memory[page * kPageSize + i] = static_cast<std::byte>(random_());
  }

  static std::uint32_t AllOf(std::uint64_t bytes) {
    return (std::uint32_t{1} << bytes / kPageSize) - 1;
  }
  static std::span<const std::byte> ChunkOf(const Memory& memory, std::uint64_t offset) {
    return std::span(memory).subspan(offset, std::min(kSnapshotChunk, kSize - offset));
  }

  std::unique_ptr<SnapshotWriter> Start(SnapshotWriter::Options options) {
    return SnapshotWriter::Create(std::move(options), {{"pc.ram", kSize}}).value();
  }
  static void Finish(SnapshotWriter& writer) {
    const std::vector<state::SavedSection> sections{{"rtc", 1, {std::byte{7}}}};
    ASSERT_TRUE(writer.Finish({.creator = "test", .running = true}, sections));
  }
  SnapshotId Write(const std::string& path, const Memory& memory, bool zstd = false) {
    auto writer = Start({.path = path, .zstd = zstd});
    for (std::uint64_t at = 0; at < kSize; at += kSnapshotChunk) {
      const auto chunk = ChunkOf(memory, at);
      EXPECT_TRUE(writer->WriteChunk(0, at, chunk, AllOf(chunk.size())));
    }
    Finish(*writer);
    return writer->id();
  }
  // What changed from `before` to `after`.
  SnapshotId WriteDiff(const std::string& path, const SnapshotId& parent, std::string parent_file,
                       const Memory& before, const Memory& after) {
    auto writer = Start({.path = path, .parent = parent, .parent_file = std::move(parent_file)});
    for (std::uint64_t at = 0; at < kSize; at += kSnapshotChunk) {
      std::uint32_t which = 0;
      for (std::uint64_t i = 0; i < ChunkOf(after, at).size() / kPageSize; ++i) {
        const std::uint64_t page = at + i * kPageSize;
        if (!std::equal(&before[page], &before[page] + kPageSize, &after[page])) which |= 1U << i;
      }
      if (which == 0) continue;
      EXPECT_TRUE(writer->WriteChunk(0, at, ChunkOf(after, at), which));
    }
    Finish(*writer);
    return writer->id();
  }
  static Result<Memory> ReadAll(const std::string& path) {
    HF_TRY(const SnapshotChain chain, SnapshotChain::Open(path));
    HF_TRY(const auto sections, chain.newest().ReadSections());
    (void)sections;
    Memory memory(kSize, std::byte{0xee});
    for (std::uint64_t at = 0; at < kSize; at += kSnapshotChunk) {
      HF_TRY_STATUS(chain.ReadChunk(
          0, at, std::span(memory).subspan(at, std::min(kSnapshotChunk, kSize - at))));
    }
    return memory;
  }

  std::string folder_;
  std::minstd_rand random_{1};
};

}  // namespace holdfast::migration
