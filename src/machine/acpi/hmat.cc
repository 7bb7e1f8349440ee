// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <holdfast/units.h>

#include "machine/acpi/numa_tables.h"

namespace holdfast::machine::acpi {
namespace {

constexpr std::uint8_t kRevision = 2;  // ACPI 6.3: latencies count in picoseconds
constexpr std::uint16_t kProximityAttributes = 0;
constexpr std::uint16_t kLocality = 1;
constexpr std::uint16_t kSideCache = 2;
constexpr std::uint16_t kInitiatorValid = 1 << 0;

void AddAttributes(TableWriter& hmat, unsigned node, unsigned initiator) {
  hmat.U16(kProximityAttributes).U16(0).U32(40);
  hmat.U16(kInitiatorValid).U16(0).U32(initiator).U32(node).U32(0).U64(0).U64(0);
}

// A row an initiator, a column a target; 0 where nothing was said.
void AddLocality(TableWriter& hmat, const HmatLocality& table, std::uint32_t nodes,
                 const std::vector<std::uint32_t>& initiators) {
  std::vector<std::uint16_t> entries(initiators.size() * nodes);
  const std::uint64_t base = std::max<std::uint64_t>(table.base, 1);  // 0 if all values are 0
  for (const HmatLocality::Entry& entry : table.entries) {
    const auto row = std::ranges::find(initiators, entry.initiator);
    if (row == initiators.end() || entry.target >= nodes) continue;
    const auto index = static_cast<std::size_t>(row - initiators.begin()) * nodes + entry.target;
    entries[index] = static_cast<std::uint16_t>(entry.value / base);
  }
  const std::size_t size = 32 + 4 * initiators.size() + std::size_t{4} * nodes + 2 * entries.size();
  hmat.U16(kLocality).U16(0).U32(static_cast<std::uint32_t>(size));
  hmat.U8(static_cast<std::uint8_t>(table.hierarchy));
  hmat.U8(static_cast<std::uint8_t>(table.data_type)).U8(0).U8(0);
  hmat.U32(static_cast<std::uint32_t>(initiators.size())).U32(nodes).U32(0);
  // Nanoseconds become picoseconds, bytes a second MiB a second.
  constexpr std::uint64_t kPicoseconds = 1000;
  hmat.U64(IsLatency(table.data_type) ? base * kPicoseconds
                                      : std::max<std::uint64_t>(base / kMiB, 1));
  for (const std::uint32_t id : initiators) hmat.U32(id);
  for (std::uint32_t id = 0; id < nodes; ++id) hmat.U32(id);
  for (const std::uint16_t entry : entries) hmat.U16(entry);
}

void AddCache(TableWriter& hmat, const HmatCache& cache, std::uint32_t levels) {
  const std::uint32_t attributes = levels | static_cast<std::uint32_t>(cache.level) << 4 |
                                   static_cast<std::uint32_t>(cache.associativity) << 8 |
                                   static_cast<std::uint32_t>(cache.policy) << 12 |
                                   static_cast<std::uint32_t>(cache.line) << 16;
  hmat.U16(kSideCache).U16(0).U32(32).U32(cache.node).U32(0);
  hmat.U64(cache.size).U32(attributes).U16(0).U16(0);
}

}  // namespace

Bytes BuildHmat(const NumaConfig& numa) {
  const auto nodes = static_cast<std::uint32_t>(numa.nodes.size());
  TableWriter hmat("HMAT", kRevision);
  hmat.U32(0);
  std::vector<std::uint32_t> initiators;
  for (std::uint32_t id = 0; id < nodes; ++id) {
    const NumaNode& node = numa.nodes[id];
    if (!node.cpus.empty()) initiators.push_back(id);
    // Only of domains the SRAT gives memory: Linux drops the whole table for another.
    if (node.size != 0) AddAttributes(hmat, id, node.initiator.value_or(id));
  }
  for (const HmatLocality& table : numa.localities) AddLocality(hmat, table, nodes, initiators);
  for (const HmatCache& cache : numa.caches) {
    const auto levels = std::ranges::count(numa.caches, cache.node, &HmatCache::node);
    AddCache(hmat, cache, static_cast<std::uint32_t>(levels));
  }
  return hmat.Finish();
}

}  // namespace holdfast::machine::acpi
