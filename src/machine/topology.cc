// SPDX-License-Identifier: Apache-2.0
#include "machine/topology.h"

#include <bit>

namespace holdfast::machine {
namespace {

unsigned BitsFor(unsigned count) noexcept {
  return static_cast<unsigned>(std::bit_width(count == 0 ? 0U : count - 1));
}

}  // namespace

ApicIdLayout::ApicIdLayout(const CpuTopology& topology) noexcept
    : thread_bits(BitsFor(topology.threads)), core_bits(BitsFor(topology.cores)) {}

std::vector<std::uint32_t> ApicIds(const CpuTopology& topology) {
  const ApicIdLayout layout(topology);
  std::vector<std::uint32_t> ids;
  ids.reserve(topology.max_cpus);
  for (unsigned i = 0; i < topology.max_cpus; ++i) {
    const unsigned thread = i % topology.threads;
    const unsigned core = i / topology.threads % topology.cores;
    const unsigned package = i / topology.threads / topology.cores;
    ids.push_back(package << layout.package_shift() | core << layout.thread_bits | thread);
  }
  return ids;
}

}  // namespace holdfast::machine
