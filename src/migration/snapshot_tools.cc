// SPDX-License-Identifier: Apache-2.0
#include "migration/snapshot_tools.h"

#include <fmt/format.h>
#include <holdfast/units.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "migration/parallel.h"
#include "migration/snapshot_writer.h"

namespace holdfast::migration {
namespace {

std::uint64_t ChunkSize(const BlockEntry& block, std::uint64_t offset) {
  return std::min(kSnapshotChunk, block.size - offset);
}

}  // namespace

Status MergeSnapshot(const SnapshotChain& chain, const std::string& path, bool zstd,
                     Progress& progress) {
  std::vector<SnapshotWriter::Block> blocks;
  for (const BlockEntry& block : chain.blocks()) blocks.push_back({block.id, block.size});
  HF_TRY(const auto sections, chain.newest().ReadSections());
  HF_TRY(const auto writer, SnapshotWriter::Create({.path = path, .zstd = zstd}, blocks));
  const std::vector<SnapshotChain::Chunk> chunks = chain.Chunks();
  progress.total += chunks.size() * kSnapshotChunk;
  const auto copy = [&](std::size_t i) -> Status {
    const auto& [block, offset, size] = chunks[i];
    std::array<std::byte, kSnapshotChunk> buffer;
    const auto pages = std::span(buffer).first(size);
    HF_TRY_STATUS(chain.ReadChunk(block, offset, pages));
    HF_TRY_STATUS(writer->WriteChunk(block, offset, pages, ~std::uint32_t{0}));
    progress.done += kSnapshotChunk;
    return {};
  };
  HF_TRY_STATUS(ForEachInParallel(chunks.size(), progress.cancelled, copy));
  SnapshotDirectory about = chain.newest().directory();
  about.sections.clear();
  about.blocks.clear();
  return writer->Finish(std::move(about), sections);
}

Status CompareMemory(const SnapshotChain& a, const SnapshotChain& b,
                     const std::function<void(const PageRange&)>& differs) {
  const auto same = [](const BlockEntry& one, const BlockEntry& other) {
    return one.id == other.id && one.size == other.size;
  };
  if (!std::ranges::equal(a.blocks(), b.blocks(), same)) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("the snapshots '{}' and '{}' are of machines with different memory",
                            a.newest().path(), b.newest().path()),
                "Compare snapshots of one machine.");
  }
  std::array<std::byte, kSnapshotChunk> buffer_a;
  std::array<std::byte, kSnapshotChunk> buffer_b;
  for (std::size_t block = 0; block < a.blocks().size(); ++block) {
    const BlockEntry& entry = a.blocks()[block];
    PageRange range{.block = entry.id};
    for (std::uint64_t at = 0; at < entry.size; at += kSnapshotChunk) {
      if (!a.HasChunk(block, at) && !b.HasChunk(block, at)) continue;
      const auto in_a = std::span(buffer_a).first(ChunkSize(entry, at));
      const auto in_b = std::span(buffer_b).first(ChunkSize(entry, at));
      HF_TRY_STATUS(a.ReadChunk(block, at, in_a));
      HF_TRY_STATUS(b.ReadChunk(block, at, in_b));
      for (std::uint64_t page = 0; page < in_a.size(); page += kPageSize) {
        if (std::ranges::equal(in_a.subspan(page, kPageSize), in_b.subspan(page, kPageSize)))
          continue;
        if (range.size != 0 && range.offset + range.size != at + page) {
          differs(range);
          range.size = 0;
        }
        if (range.size == 0) range.offset = at + page;
        range.size += kPageSize;
      }
    }
    if (range.size != 0) differs(range);
  }
  return {};
}

}  // namespace holdfast::migration
