// SPDX-License-Identifier: Apache-2.0
#include "migration/snapshot_load.h"

#include <fmt/format.h>
#include <holdfast/address_space.h>
#include <holdfast/page_bitmap.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "migration/parallel.h"

namespace holdfast::migration {

Status CheckMemory(const SnapshotChain& chain, const AddressSpace& memory) {
  const DirtyPages all(memory);
  const std::string& path = chain.newest().path();
  for (const auto& entry : all.blocks()) {
    const RamBlock& block = *entry.block;
    const auto index = chain.FindBlock(block.id());
    if (!index) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("the snapshot '{}' has no memory '{}', which this machine has", path,
                              block.id()),
                  "Start the machine with the options that the saved one had.");
    }
    const std::uint64_t size = chain.blocks()[*index].size;
    if (size == block.size()) continue;
    return Fail(Errc::kInvalidArgument,
                fmt::format("the memory '{}' is of {} in the snapshot '{}' and of {} in this "
                            "machine",
                            block.id(), FormatSize(size), path, FormatSize(block.size())),
                "Start the machine with the options that the saved one had.");
  }
  for (const BlockEntry& block : chain.blocks()) {
    const auto here = [&](const DirtyPages::Block& one) { return one.block->id() == block.id; };
    if (std::ranges::any_of(all.blocks(), here)) continue;
    return Fail(Errc::kInvalidArgument,
                fmt::format("the snapshot '{}' has memory '{}', which this machine has not", path,
                            block.id),
                "Start the machine with the options that the saved one had.");
  }
  return {};
}

Status ReadChunks(const SnapshotChain& chain, std::span<const RingReader::Target> chunks,
                  Progress& progress) {
  for (const RingReader::Target& chunk : chunks) progress.total += chunk.to.size();
  return InParallel(chunks.size(), progress.cancelled, [&](const TakeNumber& take) -> Status {
    const auto next = [&]() -> std::optional<RingReader::Target> {
      const auto i = take();
      return i ? std::optional(chunks[*i]) : std::nullopt;
    };
    auto reader = RingReader::Create(chain);
    if (reader) return (*reader)->ReadAll(next, progress);
    // A kernel that has io_uring switched off.
    while (const auto chunk = next()) {
      HF_TRY_STATUS(chain.ReadChunk(chunk->block, chunk->offset, chunk->to, chunk->zeroed));
      progress.done += chunk->to.size();
    }
    return {};
  });
}

Status LoadMemory(const SnapshotChain& chain, const AddressSpace& memory, bool empty,
                  Progress& progress) {
  const DirtyPages all(memory);
  std::vector<RingReader::Target> chunks;
  for (const auto& entry : all.blocks()) {
    const RamBlock& block = *entry.block;
    const std::size_t index = chain.FindBlock(block.id()).value_or(0);
    // A hole is cheaper than zeroes; what cannot have one is filled below.
    const bool zeroed = empty || block.Discard(0, block.size()).has_value();
    for (std::uint64_t at = 0; at < block.size(); at += kSnapshotChunk) {
      const std::uint64_t size = std::min(kSnapshotChunk, block.size() - at);
      if (!zeroed || chain.HasChunk(index, at))
        chunks.push_back({index, at, block.host_view().subspan(at, size), zeroed});
    }
  }
  return ReadChunks(chain, chunks, progress);
}

Status VerifyMemory(const SnapshotChain& chain, Progress& progress) {
  const std::vector<SnapshotChain::Chunk> chunks = chain.Chunks();
  progress.total += chunks.size() * kSnapshotChunk;
  return ForEachInParallel(chunks.size(), progress.cancelled, [&](std::size_t i) -> Status {
    const auto& [block, offset, size] = chunks[i];
    std::array<std::byte, kSnapshotChunk> buffer;
    HF_TRY_STATUS(chain.ReadChunk(block, offset, std::span(buffer).first(size)));
    progress.done += kSnapshotChunk;
    return {};
  });
}

}  // namespace holdfast::migration
