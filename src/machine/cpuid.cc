// SPDX-License-Identifier: Apache-2.0
#include "machine/cpuid.h"

#include <algorithm>

#include "machine/topology.h"

namespace holdfast::machine {
namespace {

// Leaves and bits after Intel SDM vol. 2A "CPUID" and AMD APM vol. 3 appendix E.
constexpr std::uint32_t kLeafBasicMax = 0x0;
constexpr std::uint32_t kLeafFeatures = 0x1;
constexpr std::uint32_t kLeafIntelCache = 0x4;
constexpr std::uint32_t kLeafTopology = 0xb;
constexpr std::uint32_t kLeafTopologyV2 = 0x1f;
constexpr std::uint32_t kLeafKvmFeatures = 0x40000001;
constexpr std::uint32_t kLeafAmdFeatures = 0x80000001;
constexpr std::uint32_t kLeafAddressSizes = 0x80000008;
constexpr std::uint32_t kLeafAmdCache = 0x8000001d;
constexpr std::uint32_t kLeafAmdTopology = 0x8000001e;

constexpr std::uint32_t kEcxTscDeadline = 1U << 24;
constexpr std::uint32_t kEcxHypervisor = 1U << 31;
constexpr std::uint32_t kKvmEaxMapGpaRange = 1U << 16;  // KVM_FEATURE_HC_MAP_GPA_RANGE
constexpr std::uint32_t kEdxHtt = 1U << 28;
constexpr std::uint32_t kAmdEcxCmpLegacy = 1U << 1;
constexpr std::uint32_t kTopologyLevelThread = 1;
constexpr std::uint32_t kTopologyLevelCore = 2;

// Replaces bits [low, low + width) of `value`; a field value too large for it becomes all ones.
std::uint32_t SetField(std::uint32_t value, unsigned low, unsigned width, std::uint32_t field) {
  const std::uint32_t most = (1U << width) - 1;
  return (value & ~(most << low)) | (std::min(field, most) << low);
}

bool IsAmdLike(std::span<const kvm_cpuid_entry2> entries) {
  const auto leaf = std::ranges::find(entries, kLeafBasicMax, &kvm_cpuid_entry2::function);
  constexpr std::uint32_t kAuth = 0x68747541;  // "Auth"enticAMD
  constexpr std::uint32_t kHygo = 0x6f677948;  // "Hygo"nGenuine
  return leaf != entries.end() && (leaf->ebx == kAuth || leaf->ebx == kHygo);
}

class Builder {
 public:
  Builder(const CpuidOptions& options, std::uint32_t apic_id, bool amd)
      : options_(options),
        topology_(options.topology),
        layout_(topology_),
        apic_id_(apic_id),
        amd_(amd) {}

  void Adjust(kvm_cpuid_entry2& entry) const {
    switch (entry.function) {
      case kLeafBasicMax:
        entry.eax = std::max(entry.eax, kLeafTopology);
        break;
      case kLeafFeatures:
        AdjustFeatures(entry);
        break;
      case kLeafIntelCache:
        AdjustIntelCache(entry);
        break;
      case kLeafKvmFeatures:
        if (options_.map_gpa_range) entry.eax |= kKvmEaxMapGpaRange;
        break;
      case kLeafAmdFeatures:
        if (amd_ && per_package() > 1) entry.ecx |= kAmdEcxCmpLegacy;
        break;
      case kLeafAddressSizes:
        if (amd_) {
          entry.ecx = SetField(entry.ecx, 0, 8, per_package() - 1);
          entry.ecx = SetField(entry.ecx, 12, 4, layout_.package_shift());
        }
        break;
      case kLeafAmdCache:
        AdjustAmdCache(entry);
        break;
      case kLeafAmdTopology:
        AdjustAmdTopology(entry);
        break;
      default:
        break;
    }
  }

  // Sub-leaves: threads of a core, logical CPUs of a package, end.
  void AppendTopology(std::vector<kvm_cpuid_entry2>& table, std::uint32_t leaf) const {
    const struct {
      std::uint32_t shift, count, level;
    } levels[] = {{layout_.thread_bits, topology_.threads, kTopologyLevelThread},
                  {layout_.package_shift(), per_package(), kTopologyLevelCore},
                  {0, 0, 0}};
    std::uint32_t index = 0;
    for (const auto& level : levels) {
      kvm_cpuid_entry2 entry{};
      entry.function = leaf;
      entry.index = index;
      entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
      entry.eax = level.shift;
      entry.ebx = level.count;
      entry.ecx = index | level.level << 8;
      entry.edx = apic_id_;
      table.push_back(entry);
      ++index;
    }
  }

 private:
  std::uint32_t per_package() const { return topology_.cores * topology_.threads; }

  void AdjustFeatures(kvm_cpuid_entry2& entry) const {
    entry.ebx = SetField(entry.ebx, 24, 8, apic_id_);
    entry.ebx = SetField(entry.ebx, 16, 8, per_package() > 1 ? 1U << layout_.package_shift() : 0);
    entry.edx = per_package() > 1 ? entry.edx | kEdxHtt : entry.edx & ~kEdxHtt;
    entry.ecx |= kEcxHypervisor;
    if (options_.tsc_deadline_timer) entry.ecx |= kEcxTscDeadline;
  }

  // Level 1 and 2 belong to a core, level 3 to the package.
  void AdjustIntelCache(kvm_cpuid_entry2& entry) const {
    if ((entry.eax & 0x1f) == 0) return;  // no such cache
    const std::uint32_t level = entry.eax >> 5 & 7;
    const unsigned shared_bits = level >= 3 ? layout_.package_shift() : layout_.thread_bits;
    entry.eax = SetField(entry.eax, 14, 12, (1U << shared_bits) - 1);
    entry.eax = SetField(entry.eax, 26, 6, (1U << layout_.core_bits) - 1);
  }

  void AdjustAmdCache(kvm_cpuid_entry2& entry) const {
    if ((entry.eax & 0x1f) == 0) return;
    const std::uint32_t level = entry.eax >> 5 & 7;
    entry.eax = SetField(entry.eax, 14, 12, (level >= 3 ? per_package() : topology_.threads) - 1);
  }

  void AdjustAmdTopology(kvm_cpuid_entry2& entry) const {
    entry.eax = apic_id_;
    const std::uint32_t core = apic_id_ >> layout_.thread_bits & ((1U << layout_.core_bits) - 1);
    entry.ebx = (core & 0xff) | (topology_.threads - 1) << 8;
    entry.ecx = 0;  // one node a package, node 0
    entry.edx = 0;
  }

  const CpuidOptions& options_;
  const CpuTopology& topology_;
  ApicIdLayout layout_;
  std::uint32_t apic_id_;
  bool amd_;
};

}  // namespace

std::vector<kvm_cpuid_entry2> BuildCpuid(std::span<const kvm_cpuid_entry2> supported,
                                         const CpuidOptions& options, std::uint32_t apic_id) {
  const Builder builder(options, apic_id, IsAmdLike(supported));
  std::vector<kvm_cpuid_entry2> table;
  table.reserve(supported.size() + 8);
  bool has_v2 = false;
  for (kvm_cpuid_entry2 entry : supported) {
    has_v2 = has_v2 || entry.function == kLeafTopologyV2;
    // Replaced whole: the host's own would describe the CPU this thread happened to run on.
    if (entry.function == kLeafTopology || entry.function == kLeafTopologyV2) continue;
    builder.Adjust(entry);
    table.push_back(entry);
  }
  builder.AppendTopology(table, kLeafTopology);
  if (has_v2) builder.AppendTopology(table, kLeafTopologyV2);
  return table;
}

unsigned GuestPhysBits(std::span<const kvm_cpuid_entry2> supported) noexcept {
  const auto leaf = std::ranges::find(supported, kLeafAddressSizes, &kvm_cpuid_entry2::function);
  constexpr unsigned kWithoutLeaf = 36;  // SDM vol. 3A 4.1.4: PAE without the leaf
  if (leaf == supported.end()) return kWithoutLeaf;
  // Bits 23:16 are KVM's word on what guests can use where that is less (5-level hosts).
  const unsigned guest_bits = leaf->eax >> 16 & 0xff;
  const unsigned host_bits = leaf->eax & 0xff;
  if (guest_bits != 0) return std::min(guest_bits, host_bits);
  return host_bits != 0 ? host_bits : kWithoutLeaf;
}

}  // namespace holdfast::machine
