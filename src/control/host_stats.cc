// SPDX-License-Identifier: Apache-2.0
#include "control/host_stats.h"

#include <fmt/format.h>
#include <holdfast/address_space.h>
#include <holdfast/guest_converter.h>
#include <holdfast/numa_policy.h>
#include <time.h>

#include <fstream>
#include <sstream>
#include <string>

#include "machine/machine.h"
#include "object/memory_backend.h"

namespace holdfast::control {
namespace {

using kvm::StatDescription;

HostStat Bytes(std::string name, std::uint64_t value) {
  return {{.name = std::move(name),
           .type = StatDescription::Type::kInstant,
           .unit = StatDescription::Unit::kBytes},
          {value}};
}

HostStat Count(std::string name, std::uint64_t value) {
  return {{.name = std::move(name), .type = StatDescription::Type::kCumulative}, {value}};
}

void AddConversions(const AddressSpace& memory, const GuestConverter& converter,
                    std::vector<HostStat>& stats) {
  const GuestConverter::Statistics done = converter.statistics();
  stats.push_back(Bytes("ram-private", converter.private_bytes()));
  stats.push_back(Count("conversions-to-private", done.to_private));
  stats.push_back(Count("conversions-to-shared", done.to_shared));
  stats.push_back(Count("converted-pages-to-private", done.private_pages));
  stats.push_back(Count("converted-pages-to-shared", done.shared_pages));
  stats.push_back(Count("conversions-busy", done.busy));
  stats.push_back(Count("conversions-refused", done.refused));
  stats.push_back(Count("private-accesses-refused", memory.private_refusals()));
  stats.push_back({{.name = "conversion-time",
                    .type = StatDescription::Type::kLog2Histogram,
                    .unit = StatDescription::Unit::kSeconds,
                    .exponent = -6},
                   {done.time_us.begin(), done.time_us.end()}});
}

std::optional<std::uint64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t number = 0;
  if (!(file >> number)) return std::nullopt;
  return number;
}

// The memory of all backends, used by the machine or not: all of it is taken from the host.
Placement PlacementOfAll(const VmContext& vm) {
  Placement sum;
  for (const auto& object : vm.objects->objects()) {
    const auto* const backend = dynamic_cast<const object::MemoryBackend*>(object.get());
    if (backend == nullptr || backend->block() == nullptr) continue;
    const auto placement = QueryPlacement(*backend->block());
    if (!placement) continue;
    sum.allocated += placement->allocated;
    for (const auto& [node, bytes] : placement->nodes) sum.nodes[node] += bytes;
  }
  return sum;
}

}  // namespace

std::optional<std::uint64_t> CgroupMemory() {
  std::ifstream groups("/proc/self/cgroup");
  // "ID:CONTROLLERS:PATH"; the second version of cgroups has no controllers there.
  for (std::string line; std::getline(groups, line);) {
    std::istringstream fields(line);
    std::string id;
    std::string controllers;
    std::string path;
    if (!std::getline(fields, id, ':') || !std::getline(fields, controllers, ':') ||
        !std::getline(fields, path)) {
      continue;
    }
    if (path == "/") path.clear();
    if (controllers.empty()) {
      if (auto bytes = ReadNumber("/sys/fs/cgroup" + path + "/memory.current")) return bytes;
    } else if (controllers == "memory") {
      const std::string root = "/sys/fs/cgroup/memory";
      // A container may not see the outer part of its path.
      for (const std::string& folder : {root + path, root}) {
        if (auto bytes = ReadNumber(folder + "/memory.usage_in_bytes")) return bytes;
      }
    }
  }
  return std::nullopt;
}

std::vector<HostStat> VmHostStats(const VmContext& vm) {
  const Placement placement = PlacementOfAll(vm);
  std::vector<HostStat> stats;
  stats.push_back(Bytes("ram-size", vm.machine().memory().total_size()));
  stats.push_back(Bytes("ram-allocated", placement.allocated));
  for (const auto& [node, bytes] : placement.nodes) {
    stats.push_back(Bytes(fmt::format("ram-allocated-node{}", node), bytes));
  }
  if (const GuestConverter* converter = vm.machine().converter())
    AddConversions(vm.machine().memory(), *converter, stats);
  if (const auto bytes = CgroupMemory()) stats.push_back(Bytes("cgroup-memory", *bytes));
  return stats;
}

std::vector<HostStat> VcpuHostStats(const machine::VcpuInfo& cpu) {
  // The kernel's numbering of a thread's processor-time clock (CPUCLOCK_SCHED, per thread), which
  // pthread_getcpuclockid() also makes, but only from a pthread_t.
  const auto clock = static_cast<clockid_t>((~static_cast<unsigned>(cpu.tid) << 3U) | 6U);
  timespec used{};
  if (::clock_gettime(clock, &used) != 0) used = {};
  HostStat stat;
  stat.description.name = "cpu-time";
  stat.description.type = StatDescription::Type::kCumulative;
  stat.description.unit = StatDescription::Unit::kSeconds;
  stat.description.exponent = -9;
  stat.values = {static_cast<std::uint64_t>(used.tv_sec) * 1'000'000'000 +
                 static_cast<std::uint64_t>(used.tv_nsec)};
  return {stat};
}

}  // namespace holdfast::control
