// SPDX-License-Identifier: Apache-2.0
#include "memory/free_memory.h"

#include <fmt/format.h>
#include <holdfast/units.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <string_view>

namespace holdfast {
namespace {

constexpr std::uint64_t kUnbounded = std::numeric_limits<std::uint64_t>::max();

// The number behind `name` in a file of "name value" or "name: value kB" lines; a node's file puts
// "Node N" in front of each.
std::optional<std::uint64_t> Field(const std::string& path, std::string_view name) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::string word;
    words >> word;
    if (word == "Node") words >> word >> word;
    if (word != name) continue;
    std::uint64_t value = 0;
    if (words >> value) return value;
  }
  return std::nullopt;
}

std::optional<std::uint64_t> Number(const std::string& path) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

std::uint64_t Kilobytes(const std::string& path, std::string_view name) {
  return Field(path, name).value_or(0) * kKiB;
}

std::uint64_t Minus(std::uint64_t a, std::uint64_t b) {
  return a > b ? a - b : 0;
}

// Pages that the processors keep for themselves: free, but not counted as such. The kernel takes
// them back when it runs short. After a large VM has ended it can be a few hundred MiB.
std::uint64_t KeptByCpus(const std::string& root, std::uint64_t node) {
  std::ifstream file(root + "/proc/zoneinfo");
  const std::string head = fmt::format("Node {},", node);
  bool on_node = false;
  std::uint64_t pages = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("Node ")) on_node = line.starts_with(head);
    std::istringstream words(line);
    std::string word;
    std::uint64_t count = 0;
    if (on_node && words >> word && word == "count:" && words >> count) pages += count;
  }
  return pages * kPageSize;
}

// What is free on a node or can be freed: the page cache of files. guest_memfd's own pages count as
// page cache too, but not as active or inactive files.
std::uint64_t FreeOnNode(const std::string& root, std::uint64_t node, std::uint64_t kept) {
  const std::string path = fmt::format("{}/sys/devices/system/node/node{}/meminfo", root, node);
  std::uint64_t free = KeptByCpus(root, node);
  for (const char* field : {"MemFree:", "Active(file):", "Inactive(file):", "SReclaimable:"})
    free += Kilobytes(path, field);
  return Minus(free, kept);
}

// Control groups, from this process's up: the second version of the interface only.
void TightenByControlGroups(const std::string& root, FreeMemory& tightest) {
  std::ifstream file(root + "/proc/self/cgroup");
  std::string group;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("0::/")) group = line.substr(3);
  }
  while (group.size() > 1) {
    const std::string folder = root + "/sys/fs/cgroup" + group + "/";
    const auto limit = Number(folder + "memory.max");
    const auto used = Number(folder + "memory.current");
    if (limit && used) {
      const std::string stat = folder + "memory.stat";
      const std::uint64_t reclaimable =
          Field(stat, "active_file").value_or(0) + Field(stat, "inactive_file").value_or(0);
      const std::uint64_t free = Minus(*limit, Minus(*used, reclaimable));
      if (free < tightest.bytes) tightest = {free, "the control group " + group};
    }
    group.erase(group.rfind('/'));
  }
}

}  // namespace

FreeMemory FindFreeMemory(const NumaPolicy& policy, bool swappable, const std::string& root) {
  const std::string meminfo = root + "/proc/meminfo";
  const std::uint64_t swap = swappable ? Kilobytes(meminfo, "SwapFree:") : 0;
  FreeMemory tightest{kUnbounded, "the host"};
  if (Field(meminfo, "MemAvailable:")) tightest.bytes = Kilobytes(meminfo, "MemAvailable:") + swap;
  if (policy.mode == NumaMode::kBind) {
    // The kernel does not hand out the last of a node.
    const std::uint64_t kept = Number(root + "/proc/sys/vm/min_free_kbytes").value_or(0) * kKiB;
    std::uint64_t free = swap;
    for (const std::uint64_t node : policy.nodes) free += FreeOnNode(root, node, kept);
    // The nodes are what the user can do something about, even where the host as a whole counts
    // itself a little shorter of memory than its nodes do.
    tightest = {std::min(free, tightest.bytes),
                fmt::format("host node{} {}", policy.nodes.size() > 1 ? "s" : "",
                            fmt::join(policy.nodes, ", "))};
  }
  TightenByControlGroups(root, tightest);
  return tightest;
}

}  // namespace holdfast
