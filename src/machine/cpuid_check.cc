// SPDX-License-Identifier: Apache-2.0
#include "machine/cpuid_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string_view>

namespace holdfast::machine {
namespace {

constexpr std::uint32_t kLeafXsave = 0xd;
constexpr std::uint32_t kLeafAddressSizes = 0x80000008;
constexpr std::string_view kRemedy = "Restore it on a host with the same kind of processor.";

// Registers whose bits are features, less the bits that say something else: what an operating
// system has enabled (OSXSAVE, OSPKE, the APIC) and whether a package has several CPUs.
struct FeatureRegister {
  std::uint32_t function;
  std::uint32_t index;
  std::uint32_t kvm_cpuid_entry2::* reg;
  std::string_view name;
  std::uint32_t ignored = 0;
};
constexpr FeatureRegister kFeatures[] = {
    {0x1, 0, &kvm_cpuid_entry2::ecx, "ecx", 1U << 27},
    {0x1, 0, &kvm_cpuid_entry2::edx, "edx", 1U << 28 | 1U << 9},
    {0x6, 0, &kvm_cpuid_entry2::eax, "eax"},
    {0x7, 0, &kvm_cpuid_entry2::ebx, "ebx"},
    {0x7, 0, &kvm_cpuid_entry2::ecx, "ecx", 1U << 4},
    {0x7, 0, &kvm_cpuid_entry2::edx, "edx"},
    {0x7, 1, &kvm_cpuid_entry2::eax, "eax"},
    {0x7, 1, &kvm_cpuid_entry2::ebx, "ebx"},
    {0x7, 1, &kvm_cpuid_entry2::ecx, "ecx"},
    {0x7, 1, &kvm_cpuid_entry2::edx, "edx"},
    {0x7, 2, &kvm_cpuid_entry2::edx, "edx"},
    {kLeafXsave, 0, &kvm_cpuid_entry2::eax, "eax"},
    {kLeafXsave, 0, &kvm_cpuid_entry2::edx, "edx"},
    {kLeafXsave, 1, &kvm_cpuid_entry2::eax, "eax"},
    {kLeafXsave, 1, &kvm_cpuid_entry2::ecx, "ecx"},
    {kLeafXsave, 1, &kvm_cpuid_entry2::edx, "edx"},
    {0x40000001, 0, &kvm_cpuid_entry2::eax, "eax"},
    {0x80000001, 0, &kvm_cpuid_entry2::ecx, "ecx", 1U << 1},
    {0x80000001, 0, &kvm_cpuid_entry2::edx, "edx", 1U << 28 | 1U << 9},
    {0x80000007, 0, &kvm_cpuid_entry2::edx, "edx"},
    {kLeafAddressSizes, 0, &kvm_cpuid_entry2::ebx, "ebx"},
    {0x8000000a, 0, &kvm_cpuid_entry2::edx, "edx"},
    {0x80000021, 0, &kvm_cpuid_entry2::eax, "eax"},
};

// A leaf that is not there is all zero.
kvm_cpuid_entry2 Find(std::span<const kvm_cpuid_entry2> table, std::uint32_t function,
                      std::uint32_t index) {
  const auto found = std::ranges::find_if(table, [&](const kvm_cpuid_entry2& entry) {
    return entry.function == function && entry.index == index;
  });
  return found == table.end() ? kvm_cpuid_entry2{} : *found;
}

Status CheckXsaveLayout(std::span<const kvm_cpuid_entry2> saved,
                        std::span<const kvm_cpuid_entry2> here) {
  for (const kvm_cpuid_entry2& entry : saved) {
    if (entry.function != kLeafXsave || entry.index < 2 || entry.eax == 0) continue;
    const kvm_cpuid_entry2 ours = Find(here, kLeafXsave, entry.index);
    if (ours.eax == entry.eax && ours.ebx == entry.ebx) continue;
    return Fail(Errc::kUnsupported,
                fmt::format("XSAVE component {} of the saved CPU has {} bytes at {}, here it has "
                            "{} bytes at {}",
                            entry.index, entry.eax, entry.ebx, ours.eax, ours.ebx),
                std::string(kRemedy));
  }
  return {};
}

}  // namespace

Status CheckCpuid(std::span<const kvm_cpuid_entry2> saved, std::span<const kvm_cpuid_entry2> here) {
  const kvm_cpuid_entry2 vendor = Find(saved, 0, 0);
  const kvm_cpuid_entry2 our_vendor = Find(here, 0, 0);
  if (vendor.ebx != our_vendor.ebx || vendor.ecx != our_vendor.ecx ||
      vendor.edx != our_vendor.edx) {
    return Fail(Errc::kUnsupported, "the saved CPU is of another vendor than this host's",
                std::string(kRemedy));
  }
  for (const FeatureRegister& feature : kFeatures) {
    const std::uint32_t had = Find(saved, feature.function, feature.index).*feature.reg;
    const std::uint32_t have = Find(here, feature.function, feature.index).*feature.reg;
    const std::uint32_t missing = had & ~have & ~feature.ignored;
    if (missing == 0) continue;
    return Fail(
        Errc::kUnsupported,
        fmt::format("the saved CPU has bit {} of {} in CPUID leaf {:#x}, subleaf {}, which "
                    "this host lacks",
                    std::countr_zero(missing), feature.name, feature.function, feature.index),
        std::string(kRemedy));
  }
  const std::uint32_t bits = Find(saved, kLeafAddressSizes, 0).eax & 0xff;
  const std::uint32_t our_bits = Find(here, kLeafAddressSizes, 0).eax & 0xff;
  if (bits > our_bits) {
    return Fail(Errc::kUnsupported,
                fmt::format("the saved CPU has {} physical address bits and this host's has {}",
                            bits, our_bits),
                std::string(kRemedy));
  }
  return CheckXsaveLayout(saved, here);
}

}  // namespace holdfast::machine
