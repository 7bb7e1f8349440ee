// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace holdfast::machine {

/// QEMU's limit.
inline constexpr unsigned kMaxNumaNodes = 128;

inline constexpr std::uint8_t kLocalDistance = 10;    ///< of a node to itself (ACPI 5.2.17)
inline constexpr std::uint8_t kDefaultDistance = 20;  ///< to others where none is given
inline constexpr std::uint8_t kUnreachableDistance = 255;

/// One `-numa node`.
struct NumaNode {
  std::uint64_t size = 0;           ///< bytes of RAM; 0: a node without memory
  std::string memdev = {};          ///< id of the backend that is its RAM; empty: none
  std::vector<unsigned> cpus = {};  ///< indexes of its possible CPUs, ascending; empty: none
  std::optional<unsigned> initiator =
      {};  ///< node of the CPUs nearest to its memory; with hmat only
};

/// Part of the memory an hmat-lb speaks of; the numbers are ACPI's (5.2.28.4).
enum class HmatHierarchy : std::uint8_t { kMemory, kFirstLevel, kSecondLevel, kThirdLevel };
inline constexpr unsigned kHmatHierarchies = 4;
/// What it says of it; the numbers are ACPI's.
enum class HmatDataType : std::uint8_t {
  kAccessLatency,
  kReadLatency,
  kWriteLatency,
  kAccessBandwidth,
  kReadBandwidth,
  kWriteBandwidth,
};
inline constexpr unsigned kHmatDataTypes = 6;
constexpr bool IsLatency(HmatDataType type) noexcept {
  return type <= HmatDataType::kWriteLatency;
}

/// All `-numa hmat-lb` of one kind.
struct HmatLocality {
  struct Entry {
    unsigned initiator;
    unsigned target;
    std::uint64_t value;  ///< nanoseconds or bytes a second; 0: not known
  };
  HmatHierarchy hierarchy = HmatHierarchy::kMemory;
  HmatDataType data_type = HmatDataType::kAccessLatency;
  /// What the guest's 16-bit entries count in: each value divided by it is below 0xffff.
  std::uint64_t base = 1;
  std::vector<Entry> entries = {};
};

/// One `-numa hmat-cache`; the numbers of the enumerations are ACPI's (5.2.28.5).
struct HmatCache {
  enum class Associativity : std::uint8_t { kNone, kDirect, kComplex };
  enum class WritePolicy : std::uint8_t { kNone, kWriteBack, kWriteThrough };
  unsigned node = 0;
  std::uint64_t size = 0;  ///< bytes
  std::uint8_t level = 1;  ///< 1 to 3
  Associativity associativity = Associativity::kNone;
  WritePolicy policy = WritePolicy::kNone;
  std::uint16_t line = 0;  ///< bytes
};

/// How RAM and CPUs are divided into nodes: `-numa`, checked and completed (numa_builder.h).
struct NumaConfig {
  std::vector<NumaNode> nodes = {};  ///< by node id; empty: the machine has no NUMA
  /// From node to node, row by row; empty: none given.
  std::vector<std::uint8_t> distances = {};
  bool hmat = false;  ///< `-machine hmat=on`
  std::vector<HmatLocality> localities = {};
  std::vector<HmatCache> caches = {};  ///< by node, then level

  bool enabled() const noexcept { return !nodes.empty(); }
  /// As given, or what a machine without given distances has.
  std::uint8_t Distance(unsigned from, unsigned to) const noexcept {
    if (!distances.empty()) return distances[from * nodes.size() + to];
    return from == to ? kLocalDistance : kDefaultDistance;
  }
  /// The node of a CPU; empty without NUMA.
  std::optional<unsigned> NodeOfCpu(unsigned cpu) const noexcept {
    for (unsigned id = 0; id < nodes.size(); ++id)
      for (const unsigned member : nodes[id].cpus)
        if (member == cpu) return id;
    return std::nullopt;
  }
};

}  // namespace holdfast::machine
