// SPDX-License-Identifier: Apache-2.0
#include "apps/vm_state.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "apps/json_read.h"
#include "apps/qmp_client.h"

namespace holdfast::apps {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMostEntries = 65536;  // of a list: more cannot be meant

// The answer to a command; null if the server refuses or does not know it. Only a broken connection
// is an error.
Result<Json> Ask(QmpClient& client, const char* command, const Json& arguments = Json::object()) {
  Result<Json> answer = client.Execute(command, arguments);
  if (answer) return answer;
  const Errc code = answer.error().code();
  if (code == Errc::kNotFound || code == Errc::kInvalidArgument) return Json();
  return answer;
}

// The processor time of a vCPU's thread, from this host's /proc: for servers that do not tell.
std::optional<double> ThreadSeconds(std::uint64_t thread) {
  std::ifstream file(fmt::format("/proc/{}/stat", thread));
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  return ParseThreadStat(line, ::sysconf(_SC_CLK_TCK));
}

Json StatsArguments() {
  const Json providers = {{{"provider", "kvm"}, {"names", {"exits"}}},
                          {{"provider", "holdfast"}, {"names", {"cpu-time"}}}};
  return {{"target", "vcpu"}, {"providers", providers}};
}

// The value of a statistic in an entry of query-stats.
std::optional<std::uint64_t> Statistic(const Json& entry, std::string_view name) {
  for (const Json& stat : ListMember(entry, "stats"))
    if (TextMember(stat, "name") == name) return CountMember(stat, "value");
  return std::nullopt;
}

Status QueryCpuStats(QmpClient& client, VmState& state) {
  HF_TRY(Json stats, Ask(client, "query-stats", StatsArguments()));
  if (stats.is_null()) {
    // QEMU has no provider of that name.
    const Json only_kvm = {{"target", "vcpu"},
                           {"providers", {{{"provider", "kvm"}, {"names", {"exits"}}}}}};
    HF_TRY(stats, Ask(client, "query-stats", only_kvm));
  }
  ReadCpuStats(stats, state);
  if (!client.local()) return {};
  for (VmState::Cpu& cpu : state.cpus)
    if (!cpu.seconds && cpu.host_thread != 0) cpu.seconds = ThreadSeconds(cpu.host_thread);
  return {};
}

}  // namespace

std::optional<std::uint64_t> VmState::Allocated() const {
  std::optional<std::uint64_t> sum;
  for (const Backend& backend : backends)
    if (backend.allocated) sum = sum.value_or(0) + *backend.allocated;
  return sum;
}

std::optional<double> ParseThreadStat(const std::string& line, long ticks_per_second) {
  // The second field is the thread's name in parentheses, which may hold anything.
  const std::size_t name_end = line.rfind(')');
  if (name_end == std::string::npos || ticks_per_second <= 0) return std::nullopt;
  std::istringstream fields(line.substr(name_end + 1));
  std::string skipped;
  for (int field = 3; field < 14; ++field) fields >> skipped;
  std::uint64_t user = 0;
  std::uint64_t system = 0;
  if (!(fields >> user >> system)) return std::nullopt;
  return static_cast<double>(user + system) / static_cast<double>(ticks_per_second);
}

void ReadCpus(const Json& query_cpus_fast, VmState& state) {
  state.cpus.clear();
  for (const Json& entry : AsList(query_cpus_fast)) {
    const auto index = CountMember(entry, "cpu-index");
    if (!index || state.cpus.size() == kMostEntries) continue;
    VmState::Cpu cpu{.index = *index,
                     .host_thread = CountMember(entry, "thread-id").value_or(0),
                     .path = TextMember(entry, "qom-path")};
    if (const Json* props = FindMember(entry, "props")) {
      cpu.socket = CountMember(*props, "socket-id");
      cpu.core = CountMember(*props, "core-id");
      cpu.thread = CountMember(*props, "thread-id");
      cpu.node = CountMember(*props, "node-id");
    }
    state.cpus.push_back(std::move(cpu));
  }
  std::sort(state.cpus.begin(), state.cpus.end(),
            [](const auto& a, const auto& b) { return a.index < b.index; });
}

void ReadCpuStats(const Json& query_stats, VmState& state) {
  std::map<std::string, VmState::Cpu*> by_path;
  for (VmState::Cpu& cpu : state.cpus) {
    cpu.seconds.reset();
    cpu.exits.reset();
    by_path[cpu.path] = &cpu;
  }
  for (const Json& entry : AsList(query_stats)) {
    const auto cpu = by_path.find(TextMember(entry, "qom-path"));
    if (cpu == by_path.end()) continue;
    const std::string provider = TextMember(entry, "provider");
    if (provider == "kvm") cpu->second->exits = Statistic(entry, "exits");
    if (provider != "holdfast") continue;
    if (const auto nanoseconds = Statistic(entry, "cpu-time"))
      cpu->second->seconds = static_cast<double>(*nanoseconds) / 1e9;
  }
}

void ReadBackends(const Json& query_memdev, VmState& state) {
  state.backends.clear();
  for (const Json& entry : AsList(query_memdev)) {
    const auto size = CountMember(entry, "size");
    if (!size || state.backends.size() == kMostEntries) continue;
    VmState::Backend backend{.id = TextMember(entry, "id"),
                             .type = TextMember(entry, "qom-type"),
                             .size = *size,
                             .policy = TextMember(entry, "policy"),
                             .share = FlagMember(entry, "share"),
                             .prealloc = FlagMember(entry, "prealloc"),
                             .mapped = FlagMember(entry, "mapped"),
                             .guest_memfd = FlagMember(entry, "guest-memfd"),
                             .bound = FlagMember(entry, "bound")};
    for (const Json& node : ListMember(entry, "host-nodes"))
      if (node.is_number_unsigned()) backend.host_nodes.push_back(node.get<std::uint64_t>());
    if (const Json* placement = FindMember(entry, "placement")) {
      backend.allocated = CountMember(*placement, "allocated");
      if (backend.allocated) backend.allocated = std::min(*backend.allocated, *size);
      for (const Json& part : ListMember(*placement, "nodes")) {
        const auto node = CountMember(part, "node");
        const auto bytes = CountMember(part, "bytes");
        if (node && bytes) backend.nodes[*node] = std::min(*bytes, *size);
      }
    }
    state.backends.push_back(std::move(backend));
  }
  std::sort(state.backends.begin(), state.backends.end(),
            [](const auto& a, const auto& b) { return a.id < b.id; });
}

void ReadNodes(const std::string& info_numa, VmState& state) {
  // "node 0 cpus: 0 1", "node 0 size: 64 MB"
  std::map<std::uint64_t, VmState::Node> nodes;
  std::istringstream lines(info_numa);
  for (std::string line; std::getline(lines, line);) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.pop_back();
    std::istringstream words(line);
    std::string word;
    std::string what;
    std::uint64_t id = 0;
    if (!(words >> word >> id >> what) || word != "node" || nodes.size() == kMostEntries) continue;
    VmState::Node& node = nodes[id];
    node.id = id;
    std::uint64_t megabytes = 0;
    if (what == "size:" && words >> megabytes && megabytes < (std::uint64_t{1} << 40U))
      node.size = megabytes << 20U;
    if (what != "cpus:") continue;
    std::getline(words >> std::ws, node.cpus);
    node.cpus = Printable(node.cpus);
  }
  state.nodes.clear();
  for (auto& [id, node] : nodes) state.nodes.push_back(std::move(node));
}

Status QueryVmActivity(QmpClient& client, VmState& state) {
  HF_TRY(const Json status, Ask(client, "query-status"));
  state.run_state = TextMember(status, "status");
  HF_TRY(const Json cpus, Ask(client, "query-cpus-fast"));
  ReadCpus(cpus, state);
  state.taken = std::chrono::steady_clock::now();
  return QueryCpuStats(client, state);
}

Status QueryVmMemory(QmpClient& client, VmState& state) {
  HF_TRY(Json memdev, Ask(client, "query-memdev", {{"placement", true}}));
  // QEMU's takes no argument.
  if (memdev.is_null()) {
    HF_TRY(memdev, Ask(client, "query-memdev"));
  }
  ReadBackends(memdev, state);
  return {};
}

Result<VmState> QueryVm(QmpClient& client) {
  VmState state{.server = client.server()};
  HF_TRY(const Json name, Ask(client, "query-name"));
  state.name = TextMember(name, "name");
  HF_TRY(const Json uuid, Ask(client, "query-uuid"));
  state.uuid = TextMember(uuid, "UUID");
  HF_TRY(const Json kvm, Ask(client, "query-kvm"));
  state.kvm = FlagMember(kvm, "enabled");
  HF_TRY(const Json size, Ask(client, "query-memory-size-summary"));
  state.memory = CountMember(size, "base-memory");
  HF_TRY(const Json numa, Ask(client, "human-monitor-command", {{"command-line", "info numa"}}));
  if (numa.is_string()) ReadNodes(numa.get<std::string>(), state);
  const Json own_vm_stat = {
      {"target", "vm"}, {"providers", {{{"provider", "holdfast"}, {"names", {"cgroup-memory"}}}}}};
  HF_TRY(const Json stats, Ask(client, "query-stats", own_vm_stat));
  for (const Json& entry : AsList(stats)) state.cgroup_memory = Statistic(entry, "cgroup-memory");
  HF_TRY_STATUS(QueryVmMemory(client, state));
  HF_TRY_STATUS(QueryVmActivity(client, state));
  return state;
}

}  // namespace holdfast::apps
