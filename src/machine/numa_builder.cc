// SPDX-License-Identifier: Apache-2.0
#include "machine/numa_builder.h"

#include <algorithm>
#include <string>
#include <utility>

#include <fmt/format.h>

#include <holdfast/units.h>

namespace holdfast::machine {
namespace {

tl::unexpected<Error> Refuse(std::string message, std::string hint) {
  return Fail(Errc::kInvalidArgument, std::move(message), std::move(hint));
}

// A size as an option takes it: the largest unit that divides it.
std::string SizeWord(std::uint64_t bytes) {
  for (const auto& [unit, letter] : {std::pair{kGiB, 'G'}, {kMiB, 'M'}, {kKiB, 'k'}}) {
    if (bytes % unit == 0) return fmt::format("{}{}", bytes / unit, letter);
  }
  return fmt::format("{}b", bytes);
}

}  // namespace

NumaBuilder::NumaBuilder(const CpuTopology& topology, bool hmat, FindMemdev find_memdev)
    : topology_(topology),
      hmat_(hmat),
      find_memdev_(std::move(find_memdev)),
      nodes_(kMaxNumaNodes),
      distances_(std::size_t{kMaxNumaNodes} * kMaxNumaNodes),
      cpu_nodes_(topology.max_cpus) {}

Status NumaBuilder::NeedHmat() const {
  if (hmat_) return {};
  return Refuse(
      "ACPI Heterogeneous Memory Attribute Table (HMAT) is disabled, enable it with -machine "
      "hmat=on before using any of hmat specific options",
      "Add -machine hmat=on.");
}

Status NumaBuilder::Add(const NumaNodeOption& option) {
  const std::uint64_t id = option.node_id.value_or(count_);
  if (id >= kMaxNumaNodes) {
    return Refuse(fmt::format("Max number of NUMA nodes reached: {}", id),
                  fmt::format("Node ids are 0 to {}.", kMaxNumaNodes - 1));
  }
  Node& node = nodes_[id];
  if (node.present) {
    return Refuse(fmt::format("Duplicate NUMA nodeid: {}", id), "Give each node an id of its own.");
  }
  if (option.initiator) {
    HF_TRY_STATUS(NeedHmat());
    if (*option.initiator >= kMaxNumaNodes) {
      return Refuse(fmt::format("The initiator id {} expects an integer between 0 and {}",
                                *option.initiator, kMaxNumaNodes - 1),
                    "It is the id of the node whose CPUs are nearest.");
    }
    node.initiator = static_cast<unsigned>(*option.initiator);
  }
  for (const std::uint64_t cpu : option.cpus) {
    if (cpu >= topology_.max_cpus) {
      return Refuse(fmt::format("CPU index ({}) should be smaller than maxcpus ({})", cpu,
                                topology_.max_cpus),
                    "Raise -smp, or name CPUs there are.");
    }
    HF_TRY_STATUS(AssignCpu(static_cast<unsigned>(cpu), static_cast<unsigned>(id)));
  }
  any_memdev_ = any_memdev_ || option.memdev;
  any_mem_ = any_mem_ || option.mem;
  if ((option.mem && any_memdev_) || (option.memdev && any_mem_)) {
    return Refuse("numa configuration should use either mem= or memdev=,mixing both is not allowed",
                  "Write memdev= for each node that has memory.");
  }
  if (option.mem) {
    return Refuse("Parameter -numa node,mem is not supported by this machine type",
                  "Use -numa node,memdev instead.");
  }
  if (option.memdev) {
    const auto size = find_memdev_(*option.memdev);
    if (!size) {
      return Fail(Errc::kNotFound, fmt::format("memdev={} is ambiguous", *option.memdev),
                  fmt::format("There is no memory backend of that name: make it with -object "
                              "memory-backend-guest-memfd,id={},size=SIZE.",
                              *option.memdev));
    }
    node.memdev = *option.memdev;
    node.size = *size;
  }
  node.present = true;
  ++count_;
  return {};
}

Status NumaBuilder::Add(const NumaDistOption& option) {
  if (option.src >= kMaxNumaNodes || option.dst >= kMaxNumaNodes) {
    return Refuse(fmt::format("Parameter '{}' expects an integer between 0 and {}",
                              option.src >= kMaxNumaNodes ? "src" : "dst", kMaxNumaNodes - 1),
                  "It is the id of a node.");
  }
  if (!Present(option.src) || !Present(option.dst)) {
    return Refuse(
        "Source/Destination NUMA node is missing. Please use '-numa node' option to declare it "
        "first.",
        fmt::format("Write -numa node,nodeid={} before this option.",
                    Present(option.src) ? option.dst : option.src));
  }
  if (option.val < kLocalDistance) {
    return Refuse(fmt::format("NUMA distance ({}) is invalid, it shouldn't be less than {}.",
                              option.val, kLocalDistance),
                  fmt::format("{} is the distance of a node to itself, {} means unreachable.",
                              kLocalDistance, kUnreachableDistance));
  }
  if (option.src == option.dst && option.val != kLocalDistance) {
    return Refuse(
        fmt::format("Local distance of node {} should be {}.", option.src, kLocalDistance),
        "Leave it out: it is always the same.");
  }
  distances_[option.src * kMaxNumaNodes + option.dst] = option.val;
  any_distance_ = true;
  return {};
}

Status NumaBuilder::Add(const NumaCpuOption& option) {
  if (!option.node_id) {
    return Refuse("Missing mandatory node-id property", "Say which node the CPU is in.");
  }
  if (!Present(static_cast<std::uint64_t>(*option.node_id))) {
    return Refuse(fmt::format("Invalid node-id={}, NUMA node must be defined with -numa "
                              "node,nodeid=ID before it's used with -numa cpu,node-id=ID",
                              *option.node_id),
                  "Write the -numa node option first.");
  }
  const std::pair<std::string_view, const std::optional<std::int64_t>&> kUnsupported[] = {
      {"module-id", option.module_id}, {"cluster-id", option.cluster_id}, {"die-id", option.die_id},
      {"book-id", option.book_id},     {"drawer-id", option.drawer_id},
  };
  for (const auto& [name, value] : kUnsupported) {
    if (value) {
      return Refuse(fmt::format("{} is not supported", name),
                    "A CPU of this machine has socket-id, core-id and thread-id.");
    }
  }
  bool match = false;
  for (unsigned cpu = 0; cpu < topology_.max_cpus; ++cpu) {
    const auto differs = [](const std::optional<std::int64_t>& wanted, unsigned is) {
      return wanted && *wanted != is;
    };
    if (differs(option.thread_id, cpu % topology_.threads) ||
        differs(option.core_id, cpu / topology_.threads % topology_.cores) ||
        differs(option.socket_id, cpu / topology_.threads / topology_.cores)) {
      continue;
    }
    match = true;
    HF_TRY_STATUS(AssignCpu(cpu, static_cast<unsigned>(*option.node_id)));
  }
  if (match) return {};
  return Refuse("no match found",
                fmt::format("-smp makes {} sockets of {} cores of {} threads; "
                            "numbers start at 0.",
                            topology_.sockets, topology_.cores, topology_.threads));
}

Status NumaBuilder::AssignCpu(unsigned cpu, unsigned id) {
  auto& owner = cpu_nodes_[cpu];
  if (owner && *owner != id) {
    return Refuse(fmt::format("CPU is already assigned to node-id: {}", *owner),
                  fmt::format("CPU {} can be in one node only.", cpu));
  }
  owner = id;
  if (!hmat_) return {};
  // With an HMAT, a node that has CPUs is the initiator of its own memory.
  Node& node = nodes_[id];
  if (node.initiator && *node.initiator != id) {
    return Refuse(fmt::format("The initiator of CPU NUMA node {} should be itself (got {})", id,
                              *node.initiator),
                  "Leave initiator= out for nodes that have CPUs.");
  }
  node.has_cpu = true;
  node.initiator = id;
  return {};
}

Result<NumaConfig> NumaBuilder::Finish(std::uint64_t ram_size, bool memory_backend,
                                       std::vector<std::string>& warnings) {
  if (count_ == 0) return NumaConfig{.hmat = hmat_};
  std::size_t end = nodes_.size();
  while (end > 0 && !nodes_[end - 1].present) --end;
  // Large ones first, as in QEMU: they are the likelier mistakes.
  for (std::size_t id = end; id-- > 0;) {
    if (!nodes_[id].present) {
      return Refuse(fmt::format("numa: Node ID missing: {}", id),
                    "Node ids must be consecutive, from 0 on.");
    }
  }
  HF_TRY_STATUS(CheckMemory(ram_size, memory_backend));
  if (any_distance_) HF_TRY_STATUS(CompleteDistances());
  HF_TRY_STATUS(CompleteCpus(warnings));
  if (hmat_) HF_TRY_STATUS(CheckInitiators());

  NumaConfig config;
  config.hmat = hmat_;
  for (unsigned id = 0; id < count_; ++id) {
    config.nodes.push_back(std::move(nodes_[id]));
    for (const auto& cache : caches_[id])
      if (cache) config.caches.push_back(*cache);
    if (!any_distance_) continue;
    const auto row = distances_.begin() + static_cast<std::ptrdiff_t>(id * kMaxNumaNodes);
    config.distances.insert(config.distances.end(), row, row + count_);
  }
  for (unsigned cpu = 0; cpu < topology_.max_cpus; ++cpu)
    config.nodes[*cpu_nodes_[cpu]].cpus.push_back(cpu);
  config.localities = std::move(localities_);
  return config;
}

Status NumaBuilder::CheckMemory(std::uint64_t ram_size, bool memory_backend) const {
  std::uint64_t total = 0;
  for (unsigned id = 0; id < count_; ++id) {
    const auto sum = CheckedAdd(total, nodes_[id].size);
    total = sum.value_or(~std::uint64_t{0});
  }
  if (total != ram_size) {
    return Refuse(
        fmt::format("total memory for NUMA nodes (0x{:x}) should equal RAM size (0x{:x})", total,
                    ram_size),
        total == 0 ? std::string("Give the nodes their memory with -numa node,memdev=ID.")
                   : fmt::format("Write -m {}, or change the memory backends.", SizeWord(total)));
  }
  if (any_memdev_ && memory_backend) {
    return Refuse("'-machine memory-backend' and '-numa memdev' properties are mutually exclusive",
                  "Leave memory-backend= out: the nodes' backends are the RAM.");
  }
  for (unsigned id = 0; id < count_; ++id) {
    for (unsigned other = 0; other < id; ++other) {
      if (nodes_[id].memdev.empty() || nodes_[id].memdev != nodes_[other].memdev) continue;
      return Refuse(
          fmt::format("memory backend {} can't be used multiple times.", nodes_[id].memdev),
          fmt::format("It is the memory of node {} and of node {}: make one backend for each.",
                      other, id));
    }
  }
  return {};
}

// One direction stands for both, unless some pair has two different ones: then nothing may be
// missing.
Status NumaBuilder::CompleteDistances() {
  const auto at = [this](unsigned from, unsigned to) -> std::uint8_t& {
    return distances_[from * kMaxNumaNodes + to];
  };
  bool asymmetric = false;
  bool one_way = false;
  for (unsigned from = 0; from < count_; ++from) {
    at(from, from) = kLocalDistance;
    for (unsigned to = from + 1; to < count_; ++to) {
      if (at(from, to) == 0 && at(to, from) == 0) {
        return Refuse(fmt::format("The distance between node {} and {} is missing, at least one "
                                  "distance value between each nodes should be provided.",
                                  from, to),
                      fmt::format("Add -numa dist,src={},dst={},val=20.", from, to));
      }
      if (at(from, to) == 0 || at(to, from) == 0) {
        one_way = true;
      } else if (at(from, to) != at(to, from)) {
        asymmetric = true;
      }
    }
  }
  if (asymmetric && one_way) {
    return Refuse(
        "At least one asymmetrical pair of distances is given, please provide distances for both "
        "directions of all node pairs.",
        "Only where each pair has one distance does it hold both ways.");
  }
  for (unsigned from = 0; from < count_; ++from) {
    for (unsigned to = 0; to < count_; ++to)
      if (at(from, to) == 0) at(from, to) = at(to, from);
  }
  return {};
}

std::string NumaBuilder::CpuText(unsigned cpu) const {
  return fmt::format("CPU {} [socket-id: {}, core-id: {}, thread-id: {}]", cpu,
                     cpu / topology_.threads / topology_.cores,
                     cpu / topology_.threads % topology_.cores, cpu % topology_.threads);
}

Status NumaBuilder::CompleteCpus(std::vector<std::string>& warnings) {
  const bool none_given = std::ranges::none_of(
      cpu_nodes_, [](const std::optional<unsigned>& node) { return node.has_value(); });
  std::string missing;
  for (unsigned cpu = 0; cpu < topology_.max_cpus; ++cpu) {
    if (cpu_nodes_[cpu]) continue;
    const unsigned socket = cpu / topology_.threads / topology_.cores;
    HF_TRY_STATUS(AssignCpu(cpu, none_given ? socket % count_ : 0));
    if (!none_given) missing += (missing.empty() ? "" : ", ") + CpuText(cpu);
  }
  if (missing.empty()) return {};
  warnings.push_back(fmt::format("CPU(s) not present in any NUMA nodes: {}", missing));
  warnings.emplace_back(
      "All CPU(s) up to maxcpus should be described in NUMA config, ability to start up with "
      "partial NUMA mappings is obsoleted and will be removed in future");
  return {};
}

Status NumaBuilder::CheckInitiators() const {
  for (unsigned id = 0; id < count_; ++id) {
    const std::optional<unsigned> initiator = nodes_[id].initiator;
    if (!initiator) {
      return Refuse(
          fmt::format("The initiator of NUMA node {} is missing, use '-numa "
                      "node,initiator' option to declare it",
                      id),
          fmt::format("The node has no CPUs: add initiator=ID to its -numa node option."));
    }
    if (!Present(*initiator)) {
      return Refuse(fmt::format("NUMA node {} is missing, use '-numa node' option to declare it "
                                "first",
                                *initiator),
                    fmt::format("Node {} names it as its initiator.", id));
    }
    if (!nodes_[*initiator].has_cpu) {
      return Refuse(fmt::format("The initiator of NUMA node {} is invalid", id),
                    fmt::format("Node {} has no CPUs; name one that has.", *initiator));
    }
  }
  return {};
}

}  // namespace holdfast::machine
