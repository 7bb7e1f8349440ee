// SPDX-License-Identifier: Apache-2.0
#include "machine/numa_state.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "machine/config.h"

namespace holdfast::machine {
namespace {

constexpr std::size_t kLongestBackendName = 256;

void VisitNode(state::Fields& fields, NumaNode& node) {
  fields.Value("size", node.size);
  fields.Text("memdev", node.memdev, kLongestBackendName);
  fields.List("cpus", node.cpus, kMaxCpus,
              [](state::Fields& inner, unsigned& cpu) { inner.Value("cpu", cpu); });
}

std::string MemoryOf(const NumaNode& node) {
  if (node.size == 0) return "no memory";
  return node.memdev.empty() ? fmt::format("{} bytes", node.size)
                             : fmt::format("{} bytes, '{}'", node.size, node.memdev);
}

void CompareNode(state::Fields& fields, std::size_t id, const NumaNode& saved,
                 const NumaNode& here) {
  const std::string memory_saved = MemoryOf(saved);
  const std::string memory_here = MemoryOf(here);
  fields.Check(memory_saved == memory_here,
               fmt::format("the saved machine's NUMA node {} has {} and this one's {}; give the "
                           "nodes the same memory with -numa node,memdev=",
                           id, memory_saved, memory_here));
  fields.Check(saved.cpus == here.cpus,
               fmt::format("the saved machine's NUMA node {} has the CPUs [{}] and this one's "
                           "[{}]; give the nodes the same with -numa node,cpus=",
                           id, fmt::join(saved.cpus, ","), fmt::join(here.cpus, ",")));
}

}  // namespace

void VisitNuma(state::Fields& fields, const NumaConfig& numa, state::Since since) {
  std::vector<NumaNode> nodes = numa.nodes;
  fields.List("numa-nodes", nodes, kMaxNumaNodes, &VisitNode, since);
  fields.Check(nodes.size() == numa.nodes.size(),
               fmt::format("the saved machine has {} NUMA nodes and this one {}; give it the same "
                           "-numa options",
                           nodes.size(), numa.nodes.size()));
  std::vector<std::byte> distances;
  for (unsigned from = 0; from < numa.nodes.size(); ++from) {
    for (unsigned to = 0; to < numa.nodes.size(); ++to)
      distances.push_back(std::byte{numa.Distance(from, to)});
  }
  const std::vector<std::byte> here = distances;
  fields.Blob("numa-distances", distances, std::size_t{kMaxNumaNodes} * kMaxNumaNodes, since);
  if (!fields.loading() || !fields.ok()) return;
  for (std::size_t id = 0; id < nodes.size(); ++id)
    CompareNode(fields, id, nodes[id], numa.nodes[id]);
  fields.Check(distances == here,
               "the saved machine's NUMA nodes have other distances; give these the same with "
               "-numa dist");
}

}  // namespace holdfast::machine
