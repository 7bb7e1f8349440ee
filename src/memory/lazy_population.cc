// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <holdfast/mapping.h>
#include <holdfast/page_bitmap.h>
#include <holdfast/ram_block.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>

#include "memory/host_writes.h"
#include "memory/lazy_population_impl.h"

namespace holdfast {
namespace {

// Whether new mappings get their pages at once (mlockall with MCL_FUTURE), a reservation too: a
// page that is there is never asked for.
bool MappingsAreFilled() {
  const auto page = Mapping::Map(
      {.size = kPageSize, .prot = PROT_READ | PROT_WRITE, .flags = MAP_PRIVATE | MAP_ANONYMOUS},
      "a page to try");
  unsigned char there = 0;
  return !page || ::mincore(page->data(), kPageSize, &there) != 0 || (there & 1U) != 0;
}

constexpr AddressSpace::SlotNeeds kUnbound{.unbound = true, .dirty_log = false};

}  // namespace

LazyPopulation::Impl::Impl(AddressSpace& memory, PageSource& source, Options options,
                           UniqueFd userfaultfd)
    : memory_(memory),
      source_(source),
      options_(std::move(options)),
      faults_(std::move(userfaultfd)),
      speed_(options_.background_speed) {
  for (const AddressSpace::Region& region : memory.regions()) {
    RamBlock& block = *region.block;
    const auto same = [&](const auto& known) { return &known->block() == &block; };
    if (std::ranges::any_of(blocks_, same)) continue;
    const std::uint64_t chunk = std::max(options_.chunk, block.page_size());
    blocks_.push_back(std::make_unique<PopulationBlock>(block, chunk));
    total_ += block.size();
    unbound_ = unbound_ || block.bound();
    PopulationBlock& made = *blocks_.back();
    if (options_.missing != nullptr) {
      const PageBitmap* const missing = options_.missing->Find(block);
      made.SetMissing(missing == nullptr ? PageBitmap(block.size()) : *missing);
      islands_ += made.ReadyRuns();
    }
    missing_ += made.AbsentBytes();
  }
  done_ = missing_ == 0;
}

Status LazyPopulation::Impl::CheckBlocks() const {
  if (!std::has_single_bit(options_.chunk) || options_.chunk < kPageSize) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("memory cannot be populated in chunks of {} bytes", options_.chunk),
                "Take a power of two from 4 KiB on.");
  }
  constexpr const char* kAtOnce = "Have memory populated at once (prefault=on).";
  if (const auto others = memory_.host_writes().Externals(); !others.empty()) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("memory cannot be populated on demand: {} would find it empty",
                            fmt::join(others, " and ")),
                kAtOnce);
  }
  if (MappingsAreFilled()) {
    return Fail(Errc::kInvalidArgument,
                "memory cannot be populated on demand: all memory of this process is locked",
                "Do not have it locked (mlockall), or have memory populated at once.");
  }
  for (const auto& each : blocks_) {
    const RamBlock& block = each->block();
    const auto refuse = [&](std::string_view why) {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("the memory '{}' cannot be populated on demand: {}", block.id(), why),
                  kAtOnce);
    };
    if (block.conversion() != nullptr) return refuse("some of it may become private");
    if (block.readonly()) return refuse("it is read-only");
    if (block.fd() >= 0 && !block.shared()) return refuse("it is a private mapping of a file");
  }
  return {};
}

Status LazyPopulation::Impl::Begin() {
  HF_TRY_STATUS(CheckBlocks());
  stop_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stop_) return FailErrno("creating an eventfd");
  Status begun;
  std::size_t armed = 0;
  while (begun && armed < blocks_.size()) begun = blocks_[armed++]->Arm(faults_);
  const bool move = begun && unbound_;
  if (move) begun = memory_.NeedSlots(kUnbound);
  const bool moved = move && begun;
  if (begun) begun = StartThreads();
  if (begun) return {};
  if (moved) (void)memory_.ReleaseSlots(kUnbound);
  for (std::size_t i = 0; i < armed; ++i) blocks_[i]->Abandon(faults_);
  return begun;
}

Status LazyPopulation::Impl::Need(const RamBlock& block, std::uint64_t offset, std::uint64_t size) {
  if (size == 0 || done()) return {};
  const auto found =
      std::ranges::find_if(blocks_, [&](const auto& known) { return &known->block() == &block; });
  if (found == blocks_.end()) return {};
  const std::uint64_t chunk = (*found)->chunk_size();
  const std::uint64_t first = offset / chunk;
  return NeedChunks({found->get(), first, (offset + size - 1) / chunk - first + 1});
}

Status LazyPopulation::Impl::NeedAll() {
  for (const auto& block : blocks_) HF_TRY_STATUS(NeedChunks({block.get(), 0, block->chunks()}));
  return {};
}

Status LazyPopulation::Impl::NeedChunks(const Piece& piece) {
  PopulationBlock& block = *piece.block;
  for (std::uint64_t at = piece.first; at < piece.first + piece.count;) {
    if (block.state(at) == ChunkState::kReady) {
      ++at;
      continue;
    }
    Piece claimed;
    {
      const MutexLock lock(mutex_);
      while (block.state(at) == ChunkState::kFilling) changed_.wait(mutex_);
      if (block.state(at) == ChunkState::kReady) continue;
      if (block.state(at) == ChunkState::kFailed) return Fail(failed_.at({&block, at}));
      if (ending_) {
        return Fail(Errc::kSystem, fmt::format("the memory '{}' at {:#x} was never populated",
                                               block.block().id(), at * block.chunk_size()));
      }
      claimed = Claim(block, at, piece.first + piece.count - at);
    }
    Fill(claimed);
  }
  return {};
}

Status LazyPopulation::Impl::Finish() {
  if (threads_.empty()) return {};
  HF_TRY_STATUS(NeedAll());
  StopThreads();
  memory_.SetPopulationGate(nullptr);
  for (const auto& block : blocks_) HF_TRY_STATUS(block->Disarm(faults_));
  return unbound_ ? memory_.ReleaseSlots(kUnbound) : Status();
}

void LazyPopulation::Impl::End() {
  if (threads_.empty()) return;
  if (done()) {
    // Only what keeps the memory from being as it was is left to do.
    (void)Finish();
    return;
  }
  {
    const MutexLock lock(mutex_);
    ending_ = true;
    changed_.notify_all();
    while (filling_ != 0) changed_.wait(mutex_);
  }
  StopThreads();
  // Before the descriptor is closed, which lets everybody go on who waits for a page.
  for (const auto& block : blocks_) {
    block->Close();
    (void)faults_.Wake(block->block().guest_view());
    (void)block->Disarm(faults_);
  }
}

LazyPopulation::Progress LazyPopulation::Impl::progress() const {
  const MutexLock lock(mutex_);
  return {.populated = total_ - missing_,
          .total = total_,
          .faults = fault_count_.load(std::memory_order_relaxed),
          .failed = failed_.size()};
}

void LazyPopulation::Impl::Retry() {
  const MutexLock lock(mutex_);
  for (const auto& [where, error] : failed_) {
    where.first->set_state(where.second, ChunkState::kAbsent);
    for (std::size_t i = 0; i < blocks_.size(); ++i) {
      if (blocks_[i].get() != where.first) continue;
      cursor_block_ = i;
      cursor_chunk_ = where.second;
    }
  }
  failed_.clear();
  retried_ = true;
  changed_.notify_all();
}

void LazyPopulation::Impl::SetBackgroundSpeed(std::uint64_t bytes_per_second) {
  const MutexLock lock(mutex_);
  speed_ = bytes_per_second;
  not_before_ = Clock::now();
  changed_.notify_all();
}

Result<UniqueFd> LazyPopulation::OpenUserfaultfd() {
  return Userfault::Open();
}

Result<std::unique_ptr<LazyPopulation>> LazyPopulation::Start(AddressSpace& memory,
                                                              PageSource& source, Options options) {
  UniqueFd fd = std::move(options.userfaultfd);
  if (!fd) {
    HF_TRY(fd, OpenUserfaultfd());
  }
  auto impl = std::make_shared<Impl>(memory, source, std::move(options), std::move(fd));
  HF_TRY_STATUS(impl->Begin());
  memory.SetPopulationGate(impl);
  return std::unique_ptr<LazyPopulation>(new LazyPopulation(std::move(impl)));
}

LazyPopulation::LazyPopulation(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
LazyPopulation::~LazyPopulation() {
  impl_->End();
}

LazyPopulation::Progress LazyPopulation::progress() const {
  return impl_->progress();
}
bool LazyPopulation::done() const {
  return impl_->done();
}
Status LazyPopulation::Need(const RamBlock& block, std::uint64_t offset, std::uint64_t size) {
  return impl_->Need(block, offset, size);
}
void LazyPopulation::Retry() {
  impl_->Retry();
}
void LazyPopulation::SetBackgroundSpeed(std::uint64_t bytes_per_second) {
  impl_->SetBackgroundSpeed(bytes_per_second);
}
Status LazyPopulation::Finish() {
  return impl_->Finish();
}

}  // namespace holdfast
