// SPDX-License-Identifier: Apache-2.0
// Memory that only the guest may touch: what the machine does about it.
#include <fmt/format.h>
#include <holdfast/ram_block.h>
#include <holdfast/vm.h>

#include <nlohmann/json.hpp>

#include "base/event_loop.h"
#include "machine/boot/layout.h"
#include "machine/machine_impl.h"
#include "object/sev_snp_launch.h"

namespace holdfast::machine {

static_assert(boot::kLaunchPages.base == object::kSnpSecretsPage &&
              boot::kLaunchPages.end() == object::kSnpBlobPage.value() + kPageSize);

Status Machine::Impl::PrepareConversion() {
  if (config_.confidential == nullptr) return {};
  for (const AddressSpace::Region& region : ram_.regions()) {
    if (region.block->conversion() != nullptr) continue;
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("the memory '{}' cannot become private, as confidential-guest-support={} "
                    "needs it to",
                    region.block->id(), config_.confidential->id()),
        "Use memory-backend-guest-memfd, or -m alone.");
  }
  const auto offered = static_cast<std::uint64_t>(vm_.CheckExtension(kvm::abi::kCapExitHypercall));
  constexpr std::uint64_t kMapGpaRange = 1ULL << kvm::abi::kHypercallMapGpaRange;
  if ((offered & kMapGpaRange) == 0) {
    return Fail(Errc::kUnsupported,
                "KVM does not pass on the hypercall by which a guest converts its memory",
                "It needs Linux 5.14 or later.");
  }
  HF_TRY_STATUS(vm_.EnableCapability(kvm::abi::kCapExitHypercall, kMapGpaRange));
  conversion_exits_.emplace(converter_, [this](const ConversionExits::Refusal& refusal) {
    loop_.Post([this, refusal] { TellRefusedConversion(refusal); });
  });
  return {};
}

void Machine::Impl::TellRefusedConversion(const ConversionExits::Refusal& refusal) {
  if (!events_.device_event) return;
  events_.device_event(
      "MEMORY_CONVERSION_REFUSED",
      {{"address", refusal.address.value()},
       {"size", refusal.size},
       {"attribute", refusal.to == MemoryAttribute::kPrivate ? "private" : "shared"},
       {"reason", refusal.reason},
       {"unreported", refusal.unreported}});
}

// A guest that starts anew finds nothing of the one before, and neither does Holdfast: private
// pages are given back before they are opened.
Status Machine::Impl::TakeBackMemory() {
  if (config_.confidential == nullptr) return {};
  for (const GuestConverter::Range& range : converter_.Ranges()) {
    if (range.attribute == MemoryAttribute::kShared) continue;
    HF_TRY_STATUS(ram_.Discard(range.start, range.size));
    HF_TRY_STATUS(converter_.Convert(range.start, range.size, MemoryAttribute::kShared));
  }
  return {};
}

Status Machine::Impl::LaunchConfidential() {
  if (config_.confidential == nullptr) return {};
  object::ConfidentialGuest::Guest guest{
      .vm = vm_, .memory = ram_, .converter = converter_, .vcpus = {}};
  for (const auto& vcpu : vcpus_) guest.vcpus.push_back(&vcpu->vcpu());
  return config_.confidential->Launch(guest);
}

}  // namespace holdfast::machine
