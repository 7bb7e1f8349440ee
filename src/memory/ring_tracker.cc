// SPDX-License-Identifier: Apache-2.0
#include <holdfast/address_space.h>
#include <holdfast/dirty_rings.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>
#include <holdfast/vm.h>

#include "memory/dirty_trackers.h"
#include "memory/host_writes.h"

namespace holdfast {
namespace {

constexpr AddressSpace::SlotNeeds kLogged{.unbound = false, .dirty_log = true};

class RingTracker : public DirtyTracker {
 public:
  RingTracker(AddressSpace& memory, kvm::DirtyRings& rings) : memory_(memory), rings_(rings) {}
  ~RingTracker() override { (void)Stop(); }

  Status Begin(const Options& options) {
    const auto start = std::chrono::steady_clock::now();
    // What is still in the rings is about slots that are no longer watched.
    HF_TRY_STATUS(rings_.Harvest());
    HF_TRY_STATUS(memory_.NeedSlots(kLogged));
    active_ = true;
    for (const AddressSpace::Region& region : memory_.regions())
      rings_.Watch(region.memslot, region.size / kPageSize);
    memory_.host_writes().Enable(memory_);
    all_dirty_ = options.all_dirty_at_first;
    exchange_time_ = std::chrono::steady_clock::now() - start;
    return {};
  }

  Status Collect(DirtyPages& pages) override {
    if (!active_) return {};
    memory_.host_writes().Collect(pages);
    if (all_dirty_) pages.SetAll();
    HF_TRY_STATUS(rings_.Harvest());
    for (const AddressSpace::Region& region : memory_.regions()) {
      PageBitmap* const to = pages.Find(*region.block);
      if (to == nullptr) continue;
      rings_.Take(region.memslot, [&](std::span<const std::uint64_t> bitmap) {
        for (std::size_t i = 0; i < bitmap.size(); ++i) {
          if (bitmap[i] != 0) to->MergeWord(region.block_offset / kPageSize + i * 64, bitmap[i]);
        }
      });
    }
    all_dirty_ = false;
    return {};
  }

  Status Stop() override {
    if (!active_) return {};
    active_ = false;
    memory_.host_writes().Disable();
    rings_.Forget();
    return memory_.ReleaseSlots(kLogged);
  }

  DirtyMethod method() const noexcept override { return DirtyMethod::kRing; }

 private:
  AddressSpace& memory_;
  kvm::DirtyRings& rings_;
  bool active_ = false;
  bool all_dirty_ = false;  // the next Collect() reports everything
};

}  // namespace

Result<std::unique_ptr<DirtyTracker>> StartRingTracker(AddressSpace& memory, const kvm::Vm& vm,
                                                       const DirtyTracker::Options& options) {
  if (vm.dirty_rings() == nullptr) {
    return Fail(Errc::kInvalidArgument, "this virtual machine has no dirty rings",
                "Start it with -accel kvm,dirty-ring-size=4096.");
  }
  HF_TRY_STATUS(CheckLoggable(memory));
  auto tracker = std::make_unique<RingTracker>(memory, *vm.dirty_rings());
  HF_TRY_STATUS(tracker->Begin(options));
  return tracker;
}

}  // namespace holdfast
