// SPDX-License-Identifier: Apache-2.0
#include <holdfast/dirty_rings.h>
#include <holdfast/mapping.h>
#include <holdfast/units.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <utility>

#include "base/thread_annotations.h"
#include "kvm/ioctl.h"

namespace holdfast::kvm {
namespace {

// One entry; the kernel writes it (kvm_dirty_gfn).
static_assert(sizeof(kvm_dirty_gfn) == 16);

// The highest half of an entry's slot is the address space: 1 is system management mode, which has
// no memslots here.
constexpr std::uint32_t kSlotMask = 0xffff;

}  // namespace

class DirtyRings::Impl {
 public:
  Impl(int vm, std::uint32_t entries) : vm_(vm), entries_(entries) {}
  std::uint32_t entries() const noexcept { return entries_; }

  Status Add(int vcpu) HF_EXCLUDES(mutex_) {
    HF_TRY(Mapping memory, Mapping::MapFile(vcpu, KVM_DIRTY_LOG_PAGE_OFFSET * kPageSize,
                                            std::size_t{entries_} * sizeof(kvm_dirty_gfn),
                                            PROT_READ | PROT_WRITE, "a vCPU's dirty ring"));
    const MutexLock lock(mutex_);
    rings_.push_back({.memory = std::move(memory)});
    return {};
  }

  void Watch(std::uint32_t slot, std::uint64_t pages) HF_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    watched_[slot] = {.pages = pages, .bitmap = std::vector<std::uint64_t>((pages + 63) / 64)};
  }

  void Forget() HF_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    watched_.clear();
  }

  Status Harvest() HF_EXCLUDES(mutex_) {
    // Held until KVM has protected the pages again: who asks for them meanwhile would miss a write
    // between the two.
    const MutexLock lock(mutex_);
    bool some = false;
    for (Ring& ring : rings_) some |= Empty(ring);
    if (some) HF_TRY_STATUS(Call(vm_, kResetDirtyRings));
    return {};
  }

  void Take(std::uint32_t slot, const std::function<void(std::span<const std::uint64_t>)>& take)
      HF_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    const auto watched = watched_.find(slot);
    if (watched == watched_.end()) return;
    take(watched->second.bitmap);
    std::ranges::fill(watched->second.bitmap, 0);
  }

  std::vector<std::uint64_t> Counts() HF_EXCLUDES(mutex_) {
    const MutexLock lock(mutex_);
    std::vector<std::uint64_t> counts;
    for (const Ring& ring : rings_) counts.push_back(ring.written);
    return counts;
  }

 private:
  struct Ring {
    Mapping memory;
    std::uint32_t next = 0;     // entry that KVM writes next, or has written
    std::uint64_t written = 0;  // entries taken out so far
  };
  struct Watched {
    std::uint64_t pages = 0;
    std::vector<std::uint64_t> bitmap;
  };

  // An entry's flags: 0 free, then KVM makes it dirty, then we have it reset, which frees it.
  bool Empty(Ring& ring) HF_REQUIRES(mutex_) {
    const std::span<std::byte> bytes = ring.memory.bytes();
    bool some = false;
    for (std::uint32_t count = 0; count < entries_; ++count) {
      auto* const entry = reinterpret_cast<kvm_dirty_gfn*>(
          bytes.data() + std::size_t{ring.next % entries_} * sizeof(kvm_dirty_gfn));
      const std::atomic_ref flags(entry->flags);
      if ((flags.load(std::memory_order_acquire) & KVM_DIRTY_GFN_F_DIRTY) == 0) break;
      Keep(entry->slot & kSlotMask, entry->offset);
      flags.store(KVM_DIRTY_GFN_F_RESET, std::memory_order_release);
      ++ring.next;
      ++ring.written;
      some = true;
    }
    return some;
  }

  void Keep(std::uint32_t slot, std::uint64_t page) HF_REQUIRES(mutex_) {
    const auto watched = watched_.find(slot);
    if (watched == watched_.end() || page >= watched->second.pages) return;
    watched->second.bitmap[page / 64] |= 1ULL << (page % 64);
  }

  const int vm_;
  const std::uint32_t entries_;
  Mutex mutex_;
  std::vector<Ring> rings_ HF_GUARDED_BY(mutex_);
  std::map<std::uint32_t, Watched> watched_ HF_GUARDED_BY(mutex_);
};

DirtyRings::DirtyRings(int vm, std::uint32_t entries)
    : impl_(std::make_unique<Impl>(vm, entries)) {}
DirtyRings::~DirtyRings() = default;

std::uint32_t DirtyRings::entries() const noexcept {
  return impl_->entries();
}
Status DirtyRings::Add(int vcpu) {
  return impl_->Add(vcpu);
}
void DirtyRings::Watch(std::uint32_t slot, std::uint64_t pages) {
  impl_->Watch(slot, pages);
}
void DirtyRings::Forget() {
  impl_->Forget();
}
Status DirtyRings::Harvest() {
  return impl_->Harvest();
}
void DirtyRings::Take(std::uint32_t slot,
                      const std::function<void(std::span<const std::uint64_t>)>& take) {
  impl_->Take(slot, take);
}
std::vector<std::uint64_t> DirtyRings::Counts() const {
  return impl_->Counts();
}

}  // namespace holdfast::kvm
