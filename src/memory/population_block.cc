// SPDX-License-Identifier: Apache-2.0
#include "memory/population_block.h"

#include <fmt/format.h>
#include <holdfast/lazy_population.h>
#include <holdfast/units.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <memory>

namespace holdfast {
namespace {

// As RamBlock makes its views: mappings merge only if they are alike in this.
Status Advise(std::span<std::byte> view) {
  for (const int advice : {MADV_DONTFORK, MADV_DONTDUMP}) {
    if (::madvise(view.data(), view.size(), advice) != 0)
      return FailErrno("advising the kernel on a view of guest memory");
  }
  return {};
}

Status MapFixed(std::span<std::byte> view, int protection, int flags, int fd,
                std::uint64_t offset) {
  if (::mmap(view.data(), view.size(), protection, flags | MAP_FIXED, fd,
             static_cast<off_t>(offset)) == MAP_FAILED) {
    return FailErrno(fmt::format("mapping {:#x} bytes of guest memory", view.size()));
  }
  return {};
}

struct Free {
  void operator()(std::byte* memory) const noexcept { std::free(memory); }
};

constexpr int kReservation = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

}  // namespace

PopulationBlock::PopulationBlock(RamBlock& block, std::uint64_t chunk)
    : block_(&block), chunk_(chunk), states_((block.size() + chunk - 1) / chunk) {
  for (auto& state : states_) state.store(ChunkState::kAbsent, std::memory_order_relaxed);
}

std::uint64_t PopulationBlock::Bytes(std::uint64_t first, std::uint64_t count) const noexcept {
  return std::min(count * chunk_, block_->size() - first * chunk_);
}

void PopulationBlock::SetMissing(const PageBitmap& missing) {
  const std::uint64_t pages = chunk_ / kPageSize;
  for (auto& state : states_) state.store(ChunkState::kReady, std::memory_order_relaxed);
  for (std::uint64_t chunk = 0; chunk < chunks(); ++chunk) {
    const auto run = missing.NextRun(chunk * pages, 1);
    if (!run) break;
    chunk = run->first / pages;
    set_state(chunk, ChunkState::kAbsent);
  }
  keep_ = reserved();
  // Each run is a mapping, and a process has 65530 of them (vm.max_map_count). What nothing is
  // missing of costs nothing to fill.
  constexpr std::uint64_t kMostRuns = 4096;
  if (!keep_ || ReadyRuns() <= kMostRuns) return;
  for (auto& state : states_) state.store(ChunkState::kAbsent, std::memory_order_relaxed);
}

std::uint64_t PopulationBlock::ReadyRuns() const noexcept {
  std::uint64_t runs = 0;
  for (std::uint64_t chunk = 0; chunk < chunks(); ++chunk) {
    const bool begins = chunk == 0 || state(chunk - 1) != ChunkState::kReady;
    if (begins && state(chunk) == ChunkState::kReady) ++runs;
  }
  return runs;
}

std::uint64_t PopulationBlock::AbsentBytes() const noexcept {
  std::uint64_t bytes = 0;
  for (std::uint64_t chunk = 0; chunk < chunks(); ++chunk) {
    if (state(chunk) == ChunkState::kAbsent) bytes += Bytes(chunk, 1);
  }
  return bytes;
}

Status PopulationBlock::ForEachAbsent(
    const std::function<Status(std::uint64_t, std::uint64_t)>& fn) const {
  for (std::uint64_t chunk = 0; chunk < chunks();) {
    std::uint64_t end = chunk;
    while (end < chunks() && state(end) == ChunkState::kAbsent) ++end;
    if (end > chunk) HF_TRY_STATUS(fn(chunk * chunk_, Bytes(chunk, end - chunk)));
    chunk = end + 1;
  }
  return {};
}

Status PopulationBlock::Arm(const Userfault& faults) {
  const auto arm = [&](std::uint64_t offset, std::uint64_t size) -> Status {
    // A page that is there would never be asked for.
    if (!keep_) HF_TRY_STATUS(block_->Discard(offset, size));
    if (!reserved()) return {};
    const std::span<std::byte> view = GuestView(offset, size);
    HF_TRY_STATUS(MapFixed(view, PROT_READ | PROT_WRITE, kReservation, -1, 0));
    HF_TRY_STATUS(Advise(view));
    return faults.Register(view);
  };
  HF_TRY_STATUS(ForEachAbsent(arm));
  if (reserved()) return {};
  if (Status armed = faults.Register(block_->guest_view()); !armed) {
    if (armed.error().os_errno() != EINVAL) return armed;
    return Fail(Errc::kUnsupported,
                fmt::format("the memory '{}' cannot be populated on demand: the kernel does that "
                            "for guest_memfd, memfds, anonymous memory and huge pages only",
                            block_->id()),
                "Use another memory backend, or have its memory populated at once.");
  }
  return {};
}

Status PopulationBlock::MapGuestView(std::uint64_t offset, std::uint64_t size) const {
  const std::span<std::byte> view = GuestView(offset, size);
  HF_TRY_STATUS(MapFixed(view, PROT_READ | PROT_WRITE, MAP_SHARED, block_->fd(), offset));
  return Advise(view);
}

Status PopulationBlock::Fill(PageSource& source, const Userfault& faults, std::uint64_t first,
                             std::uint64_t count) {
  const std::uint64_t offset = first * chunk_;
  const std::uint64_t size = Bytes(first, count);
  const std::span<std::byte> view = GuestView(offset, size);
  const bool zero = source.IsZero(*block_, offset, size);
  if (reserved()) {
    const std::span<std::byte> host = block_->host_view().subspan(offset, size);
    if (!zero) {
      // One call instead of a page fault for each page; a hint only.
      (void)::madvise(host.data(), host.size(), MADV_POPULATE_WRITE);
      HF_TRY_STATUS(source.Read(*block_, offset, host));
    }
    HF_TRY_STATUS(MapGuestView(offset, size));
    // The guest is likely to touch the neighbours next: KVM then finds them mapped.
    if (!zero) (void)::madvise(view.data(), view.size(), MADV_POPULATE_WRITE);
    return faults.Wake(view);
  }
  // What is zero comes into being when it is used, as ever.
  if (zero) return faults.Unregister(view);
  // Aligned, for sources that read past the page cache.
  const std::unique_ptr<std::byte, Free> memory(
      static_cast<std::byte*>(std::aligned_alloc(kPageSize, size)));
  if (memory == nullptr) {
    return Fail(Errc::kExhausted,
                fmt::format("there is no memory for a buffer of {}", FormatSize(size)));
  }
  const std::span<std::byte> buffer(memory.get(), size);
  HF_TRY_STATUS(source.Read(*block_, offset, buffer));
  return faults.Copy(view, buffer, block_->page_size());
}

Status PopulationBlock::Resume(const Userfault& faults, std::uint64_t chunk) {
  const std::span<std::byte> view = GuestView(chunk * chunk_, Bytes(chunk, 1));
  // Of other memory the page may have been given back to the host since: then it is zero now, and
  // would be reported again and again.
  return reserved() ? faults.Wake(view) : faults.Unregister(view);
}

Status PopulationBlock::Disarm(const Userfault& faults) {
  if (reserved()) return {};  // the registration went with the reservation
  return faults.Unregister(block_->guest_view());
}

void PopulationBlock::Close() {
  for (std::uint64_t chunk = 0; chunk < chunks();) {
    std::uint64_t end = chunk;
    while (end < chunks() && state(end) != ChunkState::kReady) ++end;
    if (end > chunk) {
      const std::span<std::byte> view = GuestView(chunk * chunk_, Bytes(chunk, end - chunk));
      // Of failures here there is nobody to tell; who runs a guest now was told not to.
      if (reserved()) {
        (void)MapFixed(view, PROT_NONE, kReservation, -1, 0);
      } else {
        (void)::mprotect(view.data(), view.size(), PROT_NONE);
      }
    }
    chunk = end + 1;
  }
}

void PopulationBlock::Abandon(const Userfault& faults) {
  if (reserved()) {
    (void)MapGuestView(0, block_->size());
  } else {
    (void)faults.Unregister(block_->guest_view());
  }
}

}  // namespace holdfast
