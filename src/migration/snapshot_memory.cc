// SPDX-License-Identifier: Apache-2.0
#include "migration/snapshot_memory.h"

#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "memory/present_pages.h"
#include "migration/parallel.h"

namespace holdfast::migration {
namespace {

std::uint64_t ChunkSize(const RamBlock& block, std::uint64_t offset) {
  return std::min(kSnapshotChunk, block.size() - offset);
}

// The pages of a chunk that are set, bit 0 the first.
std::uint32_t MaskOf(const PageBitmap& pages, std::uint64_t offset, std::uint64_t size) {
  std::uint32_t mask = 0;
  for (std::uint64_t i = 0; i < size / kPageSize; ++i) {
    if (pages.Test(offset / kPageSize + i)) mask |= std::uint32_t{1} << i;
  }
  return mask;
}

// Sets the pages of a range that may hold anything.
Status SetPresent(const RamBlock& block, std::uint64_t offset, std::uint64_t size,
                  PageBitmap& pages) {
  return ForEachPresent(block, offset, size, [&](std::uint64_t from, std::uint64_t length) {
    pages.Set(from / kPageSize, length / kPageSize);
    return true;
  });
}

}  // namespace

MemoryPasses::MemoryPasses(const AddressSpace& memory, SnapshotWriter& writer,
                           const SnapshotChain* parent, Progress& progress)
    : memory_(memory), writer_(writer), parent_(parent), progress_(progress) {}

Status MemoryPasses::WriteAll(bool standing) {
  Pass pass{.copy = !standing || parent_ != nullptr, .present = DirtyPages(memory_)};
  std::vector<Chunk> chunks;
  for (auto& [block, pages] : pass.present.blocks()) {
    HF_TRY_STATUS(SetPresent(*block, 0, block->size(), pages));
  }
  const auto blocks = pass.present.blocks();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    for (std::uint64_t at = 0; at < blocks[i].block->size(); at += kSnapshotChunk) {
      const auto run = blocks[i].pages.NextRun(at / kPageSize, 1);
      const bool here = run && run->offset() < at + kSnapshotChunk;
      if (here || (parent_ != nullptr && parent_->HasChunk(i, at))) chunks.push_back({i, at});
    }
  }
  return Run(pass, chunks);
}

Status MemoryPasses::WriteAgain(const DirtyPages& dirty) {
  Pass pass{.present = DirtyPages(memory_)};
  const std::vector<Chunk> chunks = ChunksOf(dirty);
  HF_TRY_STATUS(FindPresent(chunks, pass.present));
  return Run(pass, chunks);
}

Status MemoryPasses::WriteLast(const DirtyPages& dirty) {
  Pass pass{
      .layer = SnapshotWriter::Layer::kRewritten, .which = &dirty, .present = DirtyPages(memory_)};
  const std::vector<Chunk> chunks = ChunksOf(dirty);
  HF_TRY_STATUS(FindPresent(chunks, pass.present));
  return Run(pass, chunks);
}

std::vector<MemoryPasses::Chunk> MemoryPasses::ChunksOf(const DirtyPages& pages) const {
  std::vector<Chunk> chunks;
  const auto blocks = pages.blocks();
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    std::uint64_t next = 0;  // the first chunk that is not in the list
    blocks[i].pages.ForEachRun([&](const PageBitmap::Run& run) {
      std::uint64_t at = std::max(next, AlignDown(run.offset(), kSnapshotChunk));
      for (; at < run.offset() + run.size(); at += kSnapshotChunk) chunks.push_back({i, at});
      next = at;
    });
  }
  return chunks;
}

// Asked for a block at once: a memory file looks for the end of its data each time.
Status MemoryPasses::FindPresent(const std::vector<Chunk>& chunks, DirtyPages& present) const {
  for (std::size_t first = 0; first < chunks.size();) {
    std::size_t last = first;
    while (last + 1 < chunks.size() && chunks[last + 1].block == chunks[first].block) ++last;
    auto& [block, pages] = present.blocks()[chunks[first].block];
    const std::uint64_t end = chunks[last].offset + ChunkSize(*block, chunks[last].offset);
    HF_TRY_STATUS(SetPresent(*block, chunks[first].offset, end - chunks[first].offset, pages));
    first = last + 1;
  }
  return {};
}

Status MemoryPasses::Run(const Pass& pass, const std::vector<Chunk>& chunks) {
  progress_.total += chunks.size() * kSnapshotChunk;
  const auto start = std::chrono::steady_clock::now();
  const auto write = [&](std::size_t i) -> Status {
    HF_TRY_STATUS(WriteOne(pass, chunks[i]));
    progress_.done += kSnapshotChunk;
    return {};
  };
  HF_TRY_STATUS(ForEachInParallel(chunks.size(), progress_.cancelled, write));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  if (!chunks.empty() && took.count() > 0)
    speed_ = static_cast<double>(chunks.size() * kSnapshotChunk) / took.count();
  return {};
}

Status MemoryPasses::WriteOne(const Pass& pass, const Chunk& chunk) const {
  const auto& [block, present] = pass.present.blocks()[chunk.block];
  const std::uint64_t size = ChunkSize(*block, chunk.offset);
  const auto here = block->host_view().subspan(chunk.offset, size);
  const std::uint32_t there = MaskOf(present, chunk.offset, size);
  if (!pass.copy) return writer_.WriteChunk(chunk.block, chunk.offset, here, there, pass.layer);

  // A copy, so that checksum and contents are of one moment. Pages that are absent read as zeroes
  // without being touched, which would allocate them.
  std::array<std::byte, kSnapshotChunk> buffer;
  const auto copy = std::span(buffer).first(size);
  for (std::uint64_t page = 0; page < size / kPageSize; ++page) {
    const auto to = copy.subspan(page * kPageSize, kPageSize);
    if ((there >> page & 1) != 0) {
      std::ranges::copy(here.subspan(page * kPageSize, kPageSize), to.begin());
    } else {
      std::ranges::fill(to, std::byte{0});
    }
  }
  std::uint32_t which = there;
  if (pass.which != nullptr) {
    which = MaskOf(pass.which->blocks()[chunk.block].pages, chunk.offset, size);
  } else if (parent_ != nullptr) {
    std::array<std::byte, kSnapshotChunk> before_buffer;
    const auto before = std::span(before_buffer).first(size);
    HF_TRY_STATUS(parent_->ReadChunk(chunk.block, chunk.offset, before));
    which = 0;
    for (std::uint64_t page = 0; page < size / kPageSize; ++page) {
      if (!std::ranges::equal(copy.subspan(page * kPageSize, kPageSize),
                              before.subspan(page * kPageSize, kPageSize))) {
        which |= std::uint32_t{1} << page;
      }
    }
  }
  return writer_.WriteChunk(chunk.block, chunk.offset, copy, which, pass.layer);
}

}  // namespace holdfast::migration
