// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>

#include "machine/config.h"
#include "machine/numa.h"

namespace holdfast::machine {

/// `-numa node` as written.
struct NumaNodeOption {
  std::optional<std::uint64_t> node_id;
  std::vector<std::uint64_t> cpus;
  std::optional<std::uint64_t> mem;
  std::optional<std::string> memdev;
  std::optional<std::uint64_t> initiator;
};

/// `-numa dist` as written.
struct NumaDistOption {
  std::uint64_t src = 0;
  std::uint64_t dst = 0;
  std::uint8_t val = 0;
};

/// `-numa cpu` as written.
struct NumaCpuOption {
  std::optional<std::int64_t> node_id, socket_id, core_id, thread_id;
  std::optional<std::int64_t> die_id, cluster_id, module_id, drawer_id, book_id;  // refused
};

/// `-numa hmat-lb` as written.
struct NumaHmatLbOption {
  std::uint64_t initiator = 0;
  std::uint64_t target = 0;
  HmatHierarchy hierarchy = HmatHierarchy::kMemory;
  HmatDataType data_type = HmatDataType::kAccessLatency;
  std::optional<std::uint64_t> latency;    // nanoseconds
  std::optional<std::uint64_t> bandwidth;  // bytes a second
};

/// Makes a NumaConfig from the `-numa` options, in the order of the command line, with QEMU's rules
/// and QEMU's words: what an option may refer to must have come before it. Pure.
class NumaBuilder {
 public:
  /// Bytes of the memory backend with this id; empty if there is none.
  using FindMemdev = std::function<std::optional<std::uint64_t>(std::string_view id)>;

  NumaBuilder(const CpuTopology& topology, bool hmat, FindMemdev find_memdev);

  Status Add(const NumaNodeOption& node);
  Status Add(const NumaDistOption& distance);
  Status Add(const NumaCpuOption& cpu);
  Status Add(const NumaHmatLbOption& locality);
  Status Add(const HmatCache& cache);

  /// Checks what only all options together can tell and fills in what they leave open: distances
  /// back, and CPUs nobody mentions (all: their socket's number modulo the nodes; only some: node
  /// 0, with warnings).
  /// @param ram_size        bytes the nodes must add up to
  /// @param memory_backend  whether -machine memory-backend= says what the RAM is
  Result<NumaConfig> Finish(std::uint64_t ram_size, bool memory_backend,
                            std::vector<std::string>& warnings);

 private:
  struct Node : NumaNode {
    bool present = false;
    bool has_cpu = false;
    bool has_latency = false;
    bool has_bandwidth = false;
  };

  Status NeedHmat() const;
  bool Present(std::uint64_t id) const noexcept { return id < nodes_.size() && nodes_[id].present; }
  Status AssignCpu(unsigned cpu, unsigned node);
  Status CheckMemory(std::uint64_t ram_size, bool memory_backend) const;
  Status CompleteDistances();
  Status CompleteCpus(std::vector<std::string>& warnings);
  Status CheckInitiators() const;
  std::string CpuText(unsigned cpu) const;
  Status CheckLocality(const NumaHmatLbOption& option) const;
  static Status AddLatency(HmatLocality& table, const NumaHmatLbOption& option);
  static Status AddBandwidth(HmatLocality& table, const NumaHmatLbOption& option);

  const CpuTopology topology_;
  const bool hmat_;
  const FindMemdev find_memdev_;
  std::vector<Node> nodes_;  // kMaxNumaNodes of them
  unsigned count_ = 0;       // of those present
  bool any_memdev_ = false;
  bool any_mem_ = false;
  bool any_distance_ = false;
  std::vector<std::uint8_t> distances_;             // kMaxNumaNodes a row; 0: not given
  std::vector<std::optional<unsigned>> cpu_nodes_;  // by CPU index
  std::vector<HmatLocality> localities_;
  std::array<std::array<std::optional<HmatCache>, 4>, kMaxNumaNodes> caches_;  // [node][level]
};

}  // namespace holdfast::machine
