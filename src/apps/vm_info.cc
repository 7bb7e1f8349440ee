// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <holdfast/units.h>

#include <string_view>

#include <nlohmann/json.hpp>

#include "apps/text_table.h"
#include "apps/vm_state.h"

namespace holdfast::apps {
namespace {

using Json = nlohmann::ordered_json;

std::string YesNo(std::optional<bool> flag) {
  return !flag ? "-" : *flag ? "yes" : "no";
}

std::string OrDash(std::optional<std::uint64_t> number) {
  return number ? fmt::format("{}", *number) : "-";
}

std::string FormatAllocated(std::optional<std::uint64_t> allocated, std::uint64_t size) {
  if (!allocated) return "-";
  return fmt::format("{} ({})", FormatSize(*allocated),
                     FormatPercent(static_cast<double>(*allocated), static_cast<double>(size)));
}

// "guest-memfd" of memory-backend-guest-memfd.
std::string_view ShortType(std::string_view type) {
  constexpr std::string_view kCommon = "memory-backend-";
  if (type.starts_with(kCommon)) type.remove_prefix(kCommon.size());
  return type.empty() ? "-" : type;
}

std::string CpuTable(const VmState& state) {
  TextTable table("rrrrrr");
  table.Add({"VCPU", "HOST THREAD", "SOCKET", "CORE", "THREAD", "NODE"});
  for (const VmState::Cpu& cpu : state.cpus) {
    table.Add({fmt::format("{}", cpu.index), OrDash(cpu.host_thread), OrDash(cpu.socket),
               OrDash(cpu.core), OrDash(cpu.thread), OrDash(cpu.node)});
  }
  return table.ToString();
}

std::string NodeTable(const VmState& state) {
  TextTable table("rrl");
  table.Add({"GUEST NODE", "SIZE", "VCPUS"});
  for (const VmState::Node& node : state.nodes)
    table.Add(
        {fmt::format("{}", node.id), FormatSize(node.size), node.cpus.empty() ? "-" : node.cpus});
  return table.ToString();
}

std::string BackendTable(const VmState& state) {
  TextTable table("llrrlllll");
  table.Add({"MEMORY BACKEND", "TYPE", "SIZE", "ALLOCATED", "ON HOST NODES", "POLICY",
             "GUEST_MEMFD", "BOUND", "IN USE"});
  for (const VmState::Backend& backend : state.backends) {
    std::string policy = backend.policy.empty() ? "-" : backend.policy;
    if (!backend.host_nodes.empty())
      policy += fmt::format(" {}", fmt::join(backend.host_nodes, ","));
    table.Add({backend.id, std::string(ShortType(backend.type)), FormatSize(backend.size),
               FormatAllocated(backend.allocated, backend.size), FormatByNode(backend.nodes),
               policy, YesNo(backend.guest_memfd), YesNo(backend.bound), YesNo(backend.mapped)});
  }
  return table.ToString();
}

template <typename T>
Json OrNull(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

Json ByNodeJson(const VmState::ByNode& nodes) {
  Json list = Json::array();
  for (const auto& [node, bytes] : nodes) list.push_back({{"node", node}, {"bytes", bytes}});
  return list;
}

}  // namespace

std::string FormatByNode(const VmState::ByNode& nodes) {
  std::string text;
  for (const auto& [node, bytes] : nodes) {
    if (bytes == 0) continue;
    text += fmt::format("{}{}: {}", text.empty() ? "" : ", ", node, FormatSize(bytes));
  }
  return text.empty() ? "-" : text;
}

std::string FormatVmInfo(const VmState& state) {
  TextTable head("ll");
  head.Add({"Name", state.name.empty() ? "-" : state.name});
  head.Add({"UUID", state.uuid.empty() ? "-" : state.uuid});
  head.Add({"State", state.run_state.empty() ? "-" : state.run_state});
  head.Add({"Monitor", state.server.empty() ? "-" : state.server});
  head.Add({"KVM", YesNo(state.kvm)});
  head.Add({"vCPUs", fmt::format("{}", state.cpus.size())});
  std::string memory = state.memory ? FormatSize(*state.memory) : "-";
  if (const auto allocated = state.Allocated())
    memory += fmt::format(", {} allocated", FormatSize(*allocated));
  if (state.cgroup_memory)
    memory += fmt::format(", control group charged with {}", FormatSize(*state.cgroup_memory));
  head.Add({"Memory", memory});
  std::string text = head.ToString();
  if (!state.cpus.empty()) text += "\n" + CpuTable(state);
  if (!state.nodes.empty()) text += "\n" + NodeTable(state);
  if (!state.backends.empty()) text += "\n" + BackendTable(state);
  return text;
}

Json VmInfoJson(const VmState& state) {
  Json cpus = Json::array();
  for (const VmState::Cpu& cpu : state.cpus) {
    cpus.push_back({{"index", cpu.index},
                    {"host_thread", cpu.host_thread},
                    {"socket", OrNull(cpu.socket)},
                    {"core", OrNull(cpu.core)},
                    {"thread", OrNull(cpu.thread)},
                    {"node", OrNull(cpu.node)}});
  }
  Json nodes = Json::array();
  for (const VmState::Node& node : state.nodes)
    nodes.push_back({{"id", node.id}, {"size", node.size}, {"vcpus", node.cpus}});
  Json backends = Json::array();
  for (const VmState::Backend& backend : state.backends) {
    backends.push_back({{"id", backend.id},
                        {"type", backend.type},
                        {"size", backend.size},
                        {"allocated", OrNull(backend.allocated)},
                        {"host_nodes_used", ByNodeJson(backend.nodes)},
                        {"policy", backend.policy},
                        {"host_nodes", backend.host_nodes},
                        {"share", OrNull(backend.share)},
                        {"prealloc", OrNull(backend.prealloc)},
                        {"guest_memfd", OrNull(backend.guest_memfd)},
                        {"bound", OrNull(backend.bound)},
                        {"in_use", OrNull(backend.mapped)}});
  }
  return {{"name", state.name},
          {"uuid", state.uuid},
          {"state", state.run_state},
          {"monitor", state.server},
          {"kvm", OrNull(state.kvm)},
          {"memory", OrNull(state.memory)},
          {"allocated", OrNull(state.Allocated())},
          {"cgroup_memory", OrNull(state.cgroup_memory)},
          {"vcpus", std::move(cpus)},
          {"numa_nodes", std::move(nodes)},
          {"memory_backends", std::move(backends)}};
}

}  // namespace holdfast::apps
