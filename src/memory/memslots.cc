// SPDX-License-Identifier: Apache-2.0
// How AddressSpace makes its memslots, and makes them anew another way.
#include <fmt/format.h>
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <holdfast/vm.h>

namespace holdfast {
namespace {

bool IsBound(const RamBlock& block, const AddressSpace::SlotNeeds& needs) {
  return block.bound() && !needs.unbound && !needs.dirty_log;
}

// Why the block's slots have to stay bound; empty if they need not.
std::string_view WhyBound(const RamBlock& block) {
  if (!block.bound()) return {};
  if (block.slot_memfd() != block.guest_memfd()) return "it has private memory of its own";
  if (block.conversion() == nullptr) return {};
  // Private pages are closed in the host view only; the guest view shows them.
  if (block.conversion()->engine().kind() == ConversionEngineKind::kGuard) return {};
  return "its private pages are not in the guest view";
}

}  // namespace

Status AddressSpace::SetSlot(const Region& region, const SlotNeeds& needs) const {
  kvm::Memslot slot;
  slot.slot = region.memslot;
  slot.base = region.base;
  slot.size = region.size;
  slot.userspace_addr = region.block->guest_view_address() + region.block_offset;
  if (needs.dirty_log) slot.flags = KVM_MEM_LOG_DIRTY_PAGES;
  if (IsBound(*region.block, needs)) {
    slot.guest_memfd = region.block->slot_memfd();
    slot.guest_memfd_offset = region.block_offset;
  }
  return vm_->SetMemslot(slot);
}

Status AddressSpace::ChangeSlots(const SlotNeeds& from, const SlotNeeds& to) {
  if (vm_ == nullptr) return {};
  const auto change = [this](const Region& region, const SlotNeeds& before,
                             const SlotNeeds& after) -> Status {
    const bool bound = IsBound(*region.block, after);
    if (bound == IsBound(*region.block, before) && before.dirty_log == after.dirty_log) return {};
    // A bound slot cannot be changed, only deleted; and none can become bound.
    if (bound != IsBound(*region.block, before)) HF_TRY_STATUS(vm_->DeleteMemslot(region.memslot));
    return SetSlot(region, after);
  };
  for (std::size_t i = 0; i < regions_.size(); ++i) {
    Status changed = change(regions_[i], from, to);
    if (changed) continue;
    // Deleting what is not there fails and does not matter: what counts is the slot after it.
    (void)vm_->DeleteMemslot(regions_[i].memslot);
    Status restored = SetSlot(regions_[i], from);
    for (std::size_t done = 0; restored && done < i; ++done)
      restored = change(regions_[done], to, from);
    if (!restored) {
      return Fail(std::move(restored).error().Wrap(
          "guest memory could not be tracked, and its memslots could not be put back"));
    }
    return changed;
  }
  return {};
}

Status AddressSpace::NeedSlots(const SlotNeeds& needs) {
  if (needs.unbound || needs.dirty_log) {
    for (const Region& region : regions_) {
      const std::string_view why = WhyBound(*region.block);
      if (why.empty()) continue;
      return Fail(Errc::kInvalidArgument,
                  fmt::format("the memory '{}' cannot leave its guest_memfd memslot: {}",
                              region.block->id(), why),
                  "Only conversion=guard lets KVM log writes to private memory.");
    }
  }
  const SlotNeeds before = this->needs();
  const SlotNeeds after{before.unbound || needs.unbound, before.dirty_log || needs.dirty_log};
  HF_TRY_STATUS(ChangeSlots(before, after));
  if (needs.unbound) ++unbound_needed_;
  if (needs.dirty_log) ++dirty_log_needed_;
  return {};
}

Status AddressSpace::ReleaseSlots(const SlotNeeds& needs) {
  const SlotNeeds before = this->needs();
  if (needs.unbound && unbound_needed_ > 0) --unbound_needed_;
  if (needs.dirty_log && dirty_log_needed_ > 0) --dirty_log_needed_;
  return ChangeSlots(before, this->needs());
}

}  // namespace holdfast
