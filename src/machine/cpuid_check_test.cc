// SPDX-License-Identifier: Apache-2.0
#include "machine/cpuid_check.h"

#include <gtest/gtest.h>

#include <functional>
#include <vector>

namespace holdfast::machine {
namespace {

using Table = std::vector<kvm_cpuid_entry2>;

Table Example() {
  const auto entry = [](std::uint32_t function, std::uint32_t index, std::uint32_t eax,
                        std::uint32_t ebx, std::uint32_t ecx, std::uint32_t edx) {
    kvm_cpuid_entry2 made{};
    made.function = function;
    made.index = index;
    made.eax = eax;
    made.ebx = ebx;
    made.ecx = ecx;
    made.edx = edx;
    return made;
  };
  return {entry(0, 0, 0xd, 0x68747541, 0x444d4163, 0x69746e65),
          entry(1, 0, 0, 0, 0xff, 0xff),
          entry(7, 0, 1, 0xf0, 0xf0, 0xf0),
          entry(7, 1, 0xf, 0, 0, 0),
          entry(0xd, 0, 7, 0, 0, 0),
          entry(0xd, 2, 256, 576, 0, 0),
          entry(0x40000001, 0, 0xff, 0, 0, 0),
          entry(0x80000008, 0, 48, 0, 0, 0)};
}

TEST(CpuidCheck, TheSameCpuAndOneThatHasMoreWillDo) {
  const Table saved = Example();
  EXPECT_TRUE(CheckCpuid(saved, saved));
  Table more = saved;
  more[1].ecx |= 1U << 20;
  more[7].eax = 52;
  more.push_back(more[5]);
  more.back().index = 9;
  EXPECT_TRUE(CheckCpuid(saved, more));
}

TEST(CpuidCheck, WhatTheOperatingSystemHasEnabledIsNoFeature) {
  Table saved = Example();
  saved[1].ecx |= 1U << 27;
  saved[2].ecx |= 1U << 4;
  EXPECT_TRUE(CheckCpuid(saved, Example()));
}

TEST(CpuidCheck, WhatIsMissingHereIsNamed) {
  const struct {
    const char* what;
    std::function<void(Table& here)> change;
    const char* says;
  } cases[] = {
      {"vendor", [](Table& t) { t[0].ebx = 1; },
       "the saved CPU is of another vendor than this host's"},
      {"feature", [](Table& t) { t[1].edx &= ~(1U << 5); },
       "the saved CPU has bit 5 of edx in CPUID leaf 0x1, subleaf 0, which this host lacks"},
      {"subleaf", [](Table& t) { t.erase(t.begin() + 3); },
       "the saved CPU has bit 0 of eax in CPUID leaf 0x7, subleaf 1, which this host lacks"},
      {"para-virtual", [](Table& t) { t[6].eax = 0x7f; },
       "the saved CPU has bit 7 of eax in CPUID leaf 0x40000001, subleaf 0, which this host lacks"},
      {"address bits", [](Table& t) { t[7].eax = 40; },
       "the saved CPU has 48 physical address bits and this host's has 40"},
      {"layout", [](Table& t) { t[5].ebx = 832; },
       "XSAVE component 2 of the saved CPU has 256 bytes at 576, here it has 256 bytes at 832"},
      {"nothing at all", [](Table& t) { t.clear(); },
       "the saved CPU is of another vendor than this host's"},
  };
  for (const auto& c : cases) {
    Table here = Example();
    c.change(here);
    const Status status = CheckCpuid(Example(), here);
    ASSERT_FALSE(status) << c.what;
    EXPECT_EQ(status.error().message(), c.says) << c.what;
    EXPECT_EQ(status.error().code(), Errc::kUnsupported);
  }
}

}  // namespace
}  // namespace holdfast::machine
