// SPDX-License-Identifier: Apache-2.0
#include "machine/cpuid.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace holdfast::machine {
namespace {

constexpr std::uint32_t kIntel[] = {0x756e6547, 0x6c65746e, 0x49656e69};  // ebx, ecx, edx
constexpr std::uint32_t kAmd[] = {0x68747541, 0x444d4163, 0x69746e65};

kvm_cpuid_entry2 Entry(std::uint32_t function, std::uint32_t index, std::uint32_t eax,
                       std::uint32_t ebx = 0, std::uint32_t ecx = 0, std::uint32_t edx = 0) {
  kvm_cpuid_entry2 entry{};
  entry.function = function;
  entry.index = index;
  entry.eax = eax;
  entry.ebx = ebx;
  entry.ecx = ecx;
  entry.edx = edx;
  return entry;
}

// What a host's KVM might say; the APIC id and counts in it are the host's and must go.
std::vector<kvm_cpuid_entry2> Host(const std::uint32_t (&vendor)[3]) {
  return {
      Entry(0, 0, 0x0d, vendor[0], vendor[1], vendor[2]),
      Entry(1, 0, 0x000306a9, 0x37100800, 0x00200000, 1U << 28),
      Entry(4, 0, 1U << 26 | 1U << 14 | 1 << 5 | 1),         // level 1 data
      Entry(4, 3, 0xfc000000U | 0xfffU << 14 | 3 << 5 | 3),  // level 3
      Entry(0xb, 0, 7, 99, 0x100, 0x37),
      Entry(0xb, 1, 9, 99, 0x201, 0x37),
      Entry(0x80000001, 0, 0),
      Entry(0x80000008, 0, 48),
      Entry(0x8000001e, 0, 0x37, 0xff, 0xff),
  };
}

const kvm_cpuid_entry2* Find(const std::vector<kvm_cpuid_entry2>& table, std::uint32_t function,
                             std::uint32_t index = 0) {
  const auto found = std::ranges::find_if(table, [&](const kvm_cpuid_entry2& entry) {
    return entry.function == function && entry.index == index;
  });
  return found == table.end() ? nullptr : &*found;
}

// 2 sockets x 3 cores x 2 threads: thread 1 bit, core 2 bits.
constexpr CpuTopology kTopology{12, 12, 2, 3, 2};
constexpr std::uint32_t kApicId = 0xb;  // socket 1, core 1, thread 1

TEST(BuildCpuid, TellsEachCpuItsOwnApicIdEverywhere) {
  const auto table = BuildCpuid(Host(kAmd), {.topology = kTopology}, kApicId);
  EXPECT_EQ(Find(table, 1)->ebx >> 24, kApicId);
  EXPECT_EQ(Find(table, 0xb, 0)->edx, kApicId);
  EXPECT_EQ(Find(table, 0xb, 1)->edx, kApicId);
  EXPECT_EQ(Find(table, 0x8000001e)->eax, kApicId);
}

TEST(BuildCpuid, DescribesTheTopologyInLeafB) {
  const auto table = BuildCpuid(Host(kIntel), {.topology = kTopology}, kApicId);
  const kvm_cpuid_entry2* thread = Find(table, 0xb, 0);
  EXPECT_EQ(thread->eax, 1U);      // shift to the core number
  EXPECT_EQ(thread->ebx, 2U);      // threads of a core
  EXPECT_EQ(thread->ecx, 0x100U);  // level 0 is "thread"
  const kvm_cpuid_entry2* core = Find(table, 0xb, 1);
  EXPECT_EQ(core->eax, 3U);
  EXPECT_EQ(core->ebx, 6U);
  EXPECT_EQ(core->ecx, 0x201U);
  EXPECT_EQ(Find(table, 0xb, 2)->ecx, 2U);
  EXPECT_EQ(std::ranges::count(table, 0xbU, &kvm_cpuid_entry2::function), 3);
}

TEST(BuildCpuid, MarksTheHypervisorAndItsTimer) {
  CpuidOptions options{.topology = kTopology};
  EXPECT_EQ(Find(BuildCpuid(Host(kIntel), options, 0), 1)->ecx, 1U << 31 | 0x00200000U);
  options.tsc_deadline_timer = true;
  EXPECT_NE(Find(BuildCpuid(Host(kIntel), options, 0), 1)->ecx & 1U << 24, 0U);
}

TEST(BuildCpuid, SharesIntelCachesByTopology) {
  const auto table = BuildCpuid(Host(kIntel), {.topology = kTopology}, 0);
  EXPECT_EQ(Find(table, 4, 0)->eax >> 14 & 0xfff, 1U);  // a core's two threads
  EXPECT_EQ(Find(table, 4, 3)->eax >> 14 & 0xfff, 7U);  // the package's id space
  EXPECT_EQ(Find(table, 4, 0)->eax >> 26, 3U);          // cores, as id space
}

TEST(BuildCpuid, CountsAmdCoresAndThreads) {
  const auto table = BuildCpuid(Host(kAmd), {.topology = kTopology}, kApicId);
  EXPECT_EQ(Find(table, 0x80000008)->ecx & 0xff, 5U);       // six in a package
  EXPECT_EQ(Find(table, 0x80000008)->ecx >> 12 & 0xf, 3U);  // bits of the id in a package
  EXPECT_EQ(Find(table, 0x8000001e)->ebx, 1U | 1U << 8);    // core 1, two threads
  EXPECT_NE(Find(table, 0x80000001)->ecx & 2, 0U);
}

TEST(BuildCpuid, ShowsNoHyperThreadingOnASingleCpu) {
  const auto table = BuildCpuid(Host(kAmd), {.topology = {}}, 0);
  EXPECT_EQ(Find(table, 1)->edx & 1U << 28, 0U);
  EXPECT_EQ(Find(table, 1)->ebx >> 16 & 0xff, 0U);
  EXPECT_EQ(Find(table, 0x80000001)->ecx & 2, 0U);
}

TEST(GuestPhysBits, PrefersWhatKvmSaysGuestsCanUse) {
  const struct {
    std::vector<kvm_cpuid_entry2> table;
    unsigned want;
  } cases[] = {
      {{}, 36},
      {{Entry(0x80000008, 0, 48)}, 48},
      {{Entry(0x80000008, 0, 52U | 48U << 16)}, 48},
      {{Entry(0x80000008, 0, 40U | 48U << 16)}, 40},
      {{Entry(0x80000008, 0, 0)}, 36},
  };
  for (const auto& c : cases) EXPECT_EQ(GuestPhysBits(c.table), c.want);
}

}  // namespace
}  // namespace holdfast::machine
