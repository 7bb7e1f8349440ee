// SPDX-License-Identifier: Apache-2.0
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>
#include <holdfast/vm.h>

#include <algorithm>
#include <vector>

#include "memory/dirty_trackers.h"
#include "memory/host_writes.h"

namespace holdfast {
namespace {

// So much is taken out of the log in one go: KVM keeps the vCPUs' page faults waiting meanwhile. A
// multiple of 64, as the ioctl wants it.
constexpr std::uint64_t kClearPages = 64 * kMiB / kPageSize;

constexpr AddressSpace::SlotNeeds kLogged{.unbound = false, .dirty_log = true};

class LogTracker : public DirtyTracker {
 public:
  LogTracker(AddressSpace& memory, const kvm::Vm& vm) : memory_(memory), vm_(vm) {}
  ~LogTracker() override { (void)Stop(); }

  Status Begin(const Options& options) {
    const auto start = std::chrono::steady_clock::now();
    mode_ = vm_.EnableManualDirtyLog();
    HF_TRY_STATUS(memory_.NeedSlots(kLogged));
    active_ = true;
    memory_.host_writes().Enable(memory_);
    const bool all_set = mode_ == kvm::Vm::DirtyLogMode::kManualAllSet;
    all_dirty_ = options.all_dirty_at_first && !all_set;
    // What the log has now is nobody's write.
    if (all_set && !options.all_dirty_at_first) {
      for (const AddressSpace::Region& region : memory_.regions()) {
        std::vector<std::uint64_t> bitmap(Words(region), ~0ULL);
        HF_TRY_STATUS(Clear(region, bitmap));
      }
    }
    exchange_time_ = std::chrono::steady_clock::now() - start;
    return {};
  }

  Status Collect(DirtyPages& pages) override {
    if (!active_) return {};
    memory_.host_writes().Collect(pages);
    if (all_dirty_) pages.SetAll();
    for (const AddressSpace::Region& region : memory_.regions()) {
      std::vector<std::uint64_t> bitmap(Words(region));
      HF_TRY_STATUS(vm_.GetDirtyLog(region.memslot, bitmap));
      if (PageBitmap* const to = pages.Find(*region.block); to != nullptr) {
        for (std::size_t i = 0; i < bitmap.size(); ++i) {
          if (bitmap[i] != 0) to->MergeWord(region.block_offset / kPageSize + i * 64, bitmap[i]);
        }
      }
      // After it was told: what is written until here has just been reported.
      if (mode_ != kvm::Vm::DirtyLogMode::kPlain) HF_TRY_STATUS(Clear(region, bitmap));
    }
    all_dirty_ = false;
    return {};
  }

  Status Stop() override {
    if (!active_) return {};
    active_ = false;
    memory_.host_writes().Disable();
    return memory_.ReleaseSlots(kLogged);
  }

  DirtyMethod method() const noexcept override { return DirtyMethod::kBitmap; }

 private:
  static std::size_t Words(const AddressSpace::Region& region) {
    return (region.size / kPageSize + 63) / 64;
  }

  Status Clear(const AddressSpace::Region& region, std::span<const std::uint64_t> bitmap) const {
    const std::uint64_t pages = region.size / kPageSize;
    for (std::uint64_t first = 0; first < pages; first += kClearPages) {
      const std::uint64_t count = std::min(kClearPages, pages - first);
      const auto part = bitmap.subspan(first / 64, (count + 63) / 64);
      if (std::ranges::all_of(part, [](std::uint64_t word) { return word == 0; })) continue;
      HF_TRY_STATUS(
          vm_.ClearDirtyLog(region.memslot, first, static_cast<std::uint32_t>(count), part));
    }
    return {};
  }

  AddressSpace& memory_;
  const kvm::Vm& vm_;
  kvm::Vm::DirtyLogMode mode_ = kvm::Vm::DirtyLogMode::kPlain;
  bool active_ = false;
  bool all_dirty_ = false;  // the next Collect() reports everything
};

}  // namespace

Result<std::unique_ptr<DirtyTracker>> StartLogTracker(AddressSpace& memory, const kvm::Vm& vm,
                                                      const DirtyTracker::Options& options) {
  if (vm.dirty_rings() != nullptr) {
    return Fail(Errc::kInvalidArgument, "KVM keeps no dirty log where it has dirty rings",
                "Use the rings (ring), or leave dirty-ring-size= out.");
  }
  HF_TRY_STATUS(CheckLoggable(memory));
  auto tracker = std::make_unique<LogTracker>(memory, vm);
  HF_TRY_STATUS(tracker->Begin(options));
  return tracker;
}

}  // namespace holdfast
