// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "machine/acpi/numa_tables.h"
#include "machine/boot/layout.h"

namespace holdfast::machine::acpi {
namespace {

constexpr std::uint8_t kRevision = 3;
constexpr std::uint8_t kProcessorAffinity = 0;
constexpr std::uint8_t kMemoryAffinity = 1;
constexpr std::uint8_t kX2ApicAffinity = 2;
constexpr std::uint32_t kEnabled = 1 << 0;
constexpr std::uint32_t kFirstX2ApicId = 255;  // as in the MADT

void AddCpu(TableWriter& srat, std::uint32_t apic_id, unsigned node) {
  if (apic_id < kFirstX2ApicId) {
    // A node's id is below 128, so the three high bytes of the domain are 0.
    srat.U8(kProcessorAffinity).U8(16).U8(static_cast<std::uint8_t>(node));
    srat.U8(static_cast<std::uint8_t>(apic_id)).U32(kEnabled).Zeros(8);
  } else {
    srat.U8(kX2ApicAffinity).U8(24).U16(0).U32(node).U32(apic_id).U32(kEnabled).Zeros(8);
  }
}

void AddMemory(TableWriter& srat, unsigned node, std::uint64_t start, std::uint64_t end) {
  if (start >= end) return;
  srat.U8(kMemoryAffinity).U8(40).U32(node).U16(0).U64(start).U64(end - start);
  srat.U32(0).U32(kEnabled).U64(0);
}

}  // namespace

Bytes BuildSrat(const AcpiConfig& config) {
  TableWriter srat("SRAT", kRevision);
  srat.U32(1).U64(0);  // reserved, the former always 1
  for (unsigned cpu = 0; cpu < config.apic_ids.size(); ++cpu) {
    if (const auto node = config.numa.NodeOfCpu(cpu)) AddCpu(srat, config.apic_ids[cpu], *node);
  }
  for (const boot::RamPiece& piece : config.memory) {
    const auto node = static_cast<unsigned>(piece.block);
    const std::uint64_t start = piece.base.value();
    // Video memory and ROMs from 640 KiB to 1 MiB are nobody's RAM.
    AddMemory(srat, node, start, std::min(piece.end(), boot::kVideoMemoryStart));
    AddMemory(srat, node, std::max(start, boot::kHighMemoryStart), piece.end());
  }
  return srat.Finish();
}

}  // namespace holdfast::machine::acpi
