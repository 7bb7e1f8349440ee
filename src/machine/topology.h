// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "machine/config.h"

namespace holdfast::machine {

/// How an APIC id is cut into thread, core and package numbers: each field is as wide as its count
/// rounded up to a power of two needs (Intel SDM vol. 3A 9.9.3, AMD APM vol. 3 E.4.7).
struct ApicIdLayout {
  unsigned thread_bits;
  unsigned core_bits;
  explicit ApicIdLayout(const CpuTopology& topology) noexcept;
  /// Shift that leaves the package number.
  unsigned package_shift() const noexcept { return thread_bits + core_bits; }
};

/// APIC ids of all possible vCPUs, 0 to topology.max_cpus - 1. With counts that are no powers of
/// two there are gaps, so the last id can exceed the count.
std::vector<std::uint32_t> ApicIds(const CpuTopology& topology);

}  // namespace holdfast::machine
