// SPDX-License-Identifier: Apache-2.0
#include "migration/lazy_restore.h"

#include <holdfast/address_space.h>
#include <holdfast/page_bitmap.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace holdfast::migration {

SnapshotSource::SnapshotSource(SnapshotChain chain, const AddressSpace& memory)
    : chain_(std::move(chain)) {
  const DirtyPages all(memory);
  for (const auto& entry : all.blocks())
    index_.emplace_back(entry.block, chain_.FindBlock(entry.block->id()).value_or(0));
}

std::size_t SnapshotSource::IndexOf(const RamBlock& block) const noexcept {
  const auto found =
      std::ranges::find_if(index_, [&](const auto& entry) { return entry.first == &block; });
  return found->second;
}

Status SnapshotSource::Read(const RamBlock& block, std::uint64_t offset, std::span<std::byte> to) {
  const std::size_t index = IndexOf(block);
  for (std::uint64_t done = 0; done < to.size();) {
    const std::uint64_t at = offset + done;
    const std::uint64_t in_chunk = at % kSnapshotChunk;
    const std::uint64_t size = std::min(kSnapshotChunk - in_chunk, to.size() - done);
    const std::uint64_t chunk = at - in_chunk;
    const std::uint64_t whole = std::min(kSnapshotChunk, block.size() - chunk);
    if (size == whole) {
      HF_TRY_STATUS(chain_.ReadChunk(index, chunk, to.subspan(done, size)));
    } else {
      // Part of a chunk: its checksum is of all of it.
      std::vector<std::byte> buffer(whole);
      HF_TRY_STATUS(chain_.ReadChunk(index, chunk, buffer));
      std::ranges::copy(std::span(buffer).subspan(in_chunk, size), to.subspan(done).begin());
    }
    done += size;
  }
  return {};
}

bool SnapshotSource::IsZero(const RamBlock& block, std::uint64_t offset,
                            std::uint64_t size) noexcept {
  const std::size_t index = IndexOf(block);
  for (std::uint64_t at = AlignDown(offset, kSnapshotChunk); at < offset + size;
       at += kSnapshotChunk) {
    if (chain_.HasChunk(index, at)) return false;
  }
  return true;
}

Result<std::unique_ptr<LazyRestore>> LazyRestore::Start(const Subject& subject, SnapshotChain chain,
                                                        std::uint64_t bandwidth, Events events) {
  LazyPopulation::Options options;
  options.chunk = kSnapshotChunk;
  options.background_speed = bandwidth;
  return Start(subject, std::make_unique<SnapshotSource>(std::move(chain), subject.memory),
               std::move(options), std::move(events));
}

Result<std::unique_ptr<LazyRestore>> LazyRestore::Start(const Subject& subject,
                                                        std::unique_ptr<PageSource> source,
                                                        LazyPopulation::Options options,
                                                        Events events) {
  std::unique_ptr<LazyRestore> restore(
      new LazyRestore(subject, std::move(source), std::move(events)));
  LazyRestore* const raw = restore.get();
  options.on_done = [raw] { raw->main_.Post([raw] { raw->OnDone(); }); };
  options.on_error = [raw](const RamBlock& block, std::uint64_t offset, const Error& error) {
    raw->main_.Post([raw, id = block.id(), offset, error] { raw->OnError(id, offset, error); });
  };
  HF_TRY(restore->population_,
         LazyPopulation::Start(subject.memory, *restore->source_, std::move(options)));
  return restore;
}

LazyRestore::~LazyRestore() {
  main_.Close();
  if (!population_->done()) subject_.machine.Pause();
}

void LazyRestore::Retry() {
  if (population_->progress().failed != 0) population_->Retry();
}

void LazyRestore::OnDone() {
  machine::Machine& machine = subject_.machine;
  const bool ran = machine.running();
  // Memslots that have to be bound again, which no vCPU may see.
  if (ran) machine.Pause(machine::RunState::kRestoreVm);
  if (auto finished = population_->Finish(); !finished) {
    machine.Break(finished.error());
  } else if (ran) {
    if (auto resumed = machine.Resume(); !resumed) log::Error(resumed.error());
  }
  const auto done = events_.done;
  done();
}

void LazyRestore::OnError(const std::string& block, std::uint64_t offset, const Error& error) {
  subject_.machine.Pause(machine::RunState::kIoError);
  events_.failed(block, offset, error);
}

}  // namespace holdfast::migration
