// SPDX-License-Identifier: Apache-2.0
#include "object/tdx_launch.h"

#include <fmt/format.h>
#include <holdfast/units.h>

#include <algorithm>

#include "object/launch_image.h"

namespace holdfast::object {
namespace {

constexpr std::uint32_t kCapApicBusCycles = 237;  // KVM_CAP_X86_APIC_BUS_CYCLES_NS, Linux 6.11
constexpr std::uint64_t kApicBusCycleNs = 40;
constexpr std::uint32_t kXsaveLeaf = 0xd;
constexpr std::uint32_t kAddressLeaf = 0x80000008;
constexpr unsigned kGuestBitsShift = 16;  // EAX bits 23 to 16
constexpr std::uint32_t kGuestBitsMask = 0xffU << kGuestBitsShift;

const kvm_cpuid_entry2* Find(std::span<const kvm_cpuid_entry2> entries, std::uint32_t function,
                             std::uint32_t index) noexcept {
  for (const kvm_cpuid_entry2& entry : entries) {
    if (entry.function == function && entry.index == index) return &entry;
  }
  return nullptr;
}

std::uint64_t Join(std::uint32_t low, std::uint32_t high) noexcept {
  return std::uint64_t{high} << 32 | low;
}

}  // namespace

Status SetTdxClock(const kvm::Vm& vm) {
  if (vm.CheckExtension(kCapApicBusCycles) <= 0) {
    return Fail(Errc::kUnsupported, "KVM doesn't support KVM_CAP_X86_APIC_BUS_CYCLES_NS",
                "It needs Linux 6.11 or later.");
  }
  return vm.EnableCapability(kCapApicBusCycles, kApicBusCycleNs);
}

std::uint64_t TdxXfam(std::span<const kvm_cpuid_entry2> supported, const kvm::TdxLimits& limits) {
  std::uint64_t features = 0;
  if (const auto* user = Find(supported, kXsaveLeaf, 0)) features |= Join(user->eax, user->edx);
  if (const auto* system = Find(supported, kXsaveLeaf, 1))
    features |= Join(system->ecx, system->edx);
  return features & limits.xfam;
}

std::vector<kvm_cpuid_entry2> TdxCpuid(std::span<const kvm_cpuid_entry2> supported,
                                       const kvm::TdxLimits& limits) {
  std::vector<kvm_cpuid_entry2> entries;
  for (const kvm_cpuid_entry2& may : limits.cpuid) {
    const kvm_cpuid_entry2* const can = Find(supported, may.function, may.index);
    if (can == nullptr && may.function != kAddressLeaf) continue;
    kvm_cpuid_entry2 entry = may;
    if (can != nullptr) {
      entry.flags = can->flags;
      entry.eax &= can->eax;
      entry.ebx &= can->ebx;
      entry.ecx &= can->ecx;
      entry.edx &= can->edx;
    }
    if (may.function == kAddressLeaf) {
      const std::uint32_t bits = (can != nullptr ? can->eax : 0) >> kGuestBitsShift & 0xffU;
      entry.eax = (entry.eax & ~kGuestBitsMask) | (bits == 52 ? 52U : 48U) << kGuestBitsShift;
    }
    entries.push_back(entry);
  }
  return entries;
}

Status LaunchTdx(const ConfidentialGuest::Guest& guest, bool in_place) {
  const auto& regions = guest.memory.regions();
  const bool starts_somewhere =
      std::any_of(regions.begin(), regions.end(), [](const AddressSpace::Region& region) {
        return kTdxResetVector >= region.base && kTdxResetVector < region.base + region.size;
      });
  if (!starts_somewhere) {
    return Fail(
        Errc::kUnsupported,
        fmt::format("a TDX guest starts in its firmware at {:#x}, and this machine has none",
                    kTdxResetVector.value()),
        "Holdfast does not load a TDVF yet.");
  }
  // No hand-off block: what a firmware would read from it is in the ACPI tables.
  for (const kvm::Vcpu* vcpu : guest.vcpus) HF_TRY_STATUS(kvm::TdxInitVcpu(*vcpu, 0));

  const kvm::Vcpu& first = *guest.vcpus.front();
  const auto add = [&](GuestAddress base, std::uint64_t size, std::uint64_t source) -> Status {
    kvm::abi::TdxMemRegion region{
        .source_addr = source, .gpa = base.value(), .nr_pages = size / kPageSize};
    return kvm::TdxInitMemRegion(first, region, /*measure=*/true);
  };
  HF_TRY(const std::vector<LaunchRun> runs, FindLaunchRuns(guest.memory));
  for (const LaunchRun& run : runs) {
    if (run.zero || in_place) {
      HF_TRY_STATUS(MakeLaunchPrivate(guest.converter, run.base, run.size));
      if (!run.zero) HF_TRY_STATUS(add(run.base, run.size, 0));
      continue;
    }
    HF_TRY_STATUS(LaunchFromBuffer(guest.memory, guest.converter, run.base, run.size,
                                   [&](GuestAddress base, std::span<std::byte> copy) {
                                     return add(base, copy.size(),
                                                reinterpret_cast<std::uint64_t>(copy.data()));
                                   }));
  }
  return kvm::TdxFinalizeVm(guest.vm);
}

}  // namespace holdfast::object
