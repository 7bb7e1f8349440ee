// SPDX-License-Identifier: Apache-2.0
#include "apps/vm_top.h"

#include <fmt/format.h>
#include <holdfast/units.h>

#include <algorithm>
#include <limits>
#include <sstream>
#include <utility>

#include <nlohmann/json.hpp>

#include "apps/text_table.h"

namespace holdfast::apps {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kBarColumns = 22;
// Beyond this many rows every table shows at least, whatever the terminal's height.
constexpr std::size_t kLeastRows = 2;
constexpr std::size_t kHeadRows = 4;

std::string Percent(std::optional<double> use) {
  return use ? fmt::format("{:.1f} %", 100 * *use) : "-";
}

// "12,345": thousands are told apart.
std::string Rate(std::optional<double> rate) {
  if (!rate) return "-";
  std::string digits = fmt::format("{:.0f}", *rate);
  for (std::size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, 1, ',');
  return digits;
}

std::string RateOfBytes(std::optional<double> rate) {
  if (!rate || *rate < 0 || *rate > 1e18) return "-";
  return FormatSize(static_cast<std::uint64_t>(*rate)) + "/s";
}

std::optional<double> Sum(const std::vector<CpuActivity>& cpus,
                          std::optional<double> CpuActivity::* member) {
  std::optional<double> sum;
  for (const CpuActivity& cpu : cpus)
    if (cpu.*member) sum = sum.value_or(0) + *(cpu.*member);
  return sum;
}

// A line of at most `columns` characters. What is cut is plain ASCII apart from names, of which a
// broken last character does no harm.
std::string Cut(std::string_view text, std::size_t columns) {
  std::string cut;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    cut += text.substr(at, std::min(end - at, columns));
    cut += '\n';
    at = end + 1;
  }
  return cut;
}

std::string CpuTable(const TopView& view, std::size_t most) {
  std::vector<CpuActivity> cpus = view.cpus;
  const bool all = cpus.size() <= most;
  if (!all) {
    std::sort(cpus.begin(), cpus.end(), [](const auto& a, const auto& b) {
      const double left = a.use.value_or(0);
      const double right = b.use.value_or(0);
      return left != right ? left > right : a.index < b.index;
    });
    cpus.resize(most > 0 ? most - 1 : 0);
  }
  TextTable table("rrrlr");
  table.Add({"VCPU", "THREAD", "USE", "", "EXITS/S"});
  for (const CpuActivity& cpu : cpus) {
    table.Add({fmt::format("{}", cpu.index), fmt::format("{}", cpu.host_thread), Percent(cpu.use),
               FormatBar(cpu.use.value_or(0), 1, kBarColumns), Rate(cpu.exits_per_second)});
  }
  std::string text = table.ToString();
  if (!all) text += fmt::format("({} vCPUs less busy)\n", view.cpus.size() - cpus.size());
  return text;
}

std::string MemoryTable(const TopView& view, std::size_t most) {
  const std::vector<VmState::Backend>& backends = view.state.backends;
  const bool all = backends.size() <= most;
  const std::size_t shown = all ? backends.size() : most > 0 ? most - 1 : 0;
  TextTable table("lrrrll");
  table.Add({"MEMORY", "SIZE", "ALLOCATED", "", "", "HOST NODES"});
  for (std::size_t i = 0; i < shown; ++i) {
    const VmState::Backend& backend = backends[i];
    const auto size = static_cast<double>(backend.size);
    const auto allocated = static_cast<double>(backend.allocated.value_or(0));
    table.Add({backend.id, FormatSize(backend.size),
               backend.allocated ? FormatSize(*backend.allocated) : "-",
               backend.allocated ? FormatPercent(allocated, size) : "-",
               FormatBar(allocated, size, kBarColumns), FormatByNode(backend.nodes)});
  }
  std::string text = table.ToString();
  if (!all) text += fmt::format("({} more backends)\n", backends.size() - shown);
  return text;
}

template <typename T>
Json OrNull(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

}  // namespace

std::optional<double> TopView::CpuUse() const {
  return Sum(cpus, &CpuActivity::use);
}
std::optional<double> TopView::ExitsPerSecond() const {
  return Sum(cpus, &CpuActivity::exits_per_second);
}

TopView CompareReadings(const VmState& before, VmState now) {
  TopView view;
  view.seconds = std::chrono::duration<double>(now.taken - before.taken).count();
  for (const VmState::Cpu& cpu : now.cpus) {
    CpuActivity activity{.index = cpu.index, .host_thread = cpu.host_thread};
    const auto old = std::find_if(before.cpus.begin(), before.cpus.end(), [&](const auto& other) {
      return other.index == cpu.index && other.host_thread == cpu.host_thread;
    });
    if (old != before.cpus.end() && view.seconds > 0) {
      if (cpu.seconds && old->seconds && *cpu.seconds >= *old->seconds)
        activity.use = (*cpu.seconds - *old->seconds) / view.seconds;
      if (cpu.exits && old->exits && *cpu.exits >= *old->exits)
        activity.exits_per_second = static_cast<double>(*cpu.exits - *old->exits) / view.seconds;
    }
    view.cpus.push_back(activity);
  }
  view.state = std::move(now);
  return view;
}

std::string DrawTop(const TopView& view, std::size_t columns, std::size_t rows) {
  const VmState& state = view.state;
  std::string text = fmt::format("{} ({})  {} vCPU{}  CPU {}  exits/s {}\n",
                                 state.name.empty() ? "virtual machine" : state.name,
                                 state.run_state.empty() ? "-" : state.run_state, view.cpus.size(),
                                 view.cpus.size() == 1 ? "" : "s", Percent(view.CpuUse()),
                                 Rate(view.ExitsPerSecond()));
  std::string memory = "-";
  if (const auto allocated = state.Allocated()) memory = FormatSize(*allocated);
  text += fmt::format("memory {} of {}  dirty rate {}  conversions/s {}\n\n", memory,
                      state.memory ? FormatSize(*state.memory) : "-",
                      RateOfBytes(view.dirty_bytes_per_second), Rate(view.conversions_per_second));
  // Both tables have a head; memory takes what it needs, but leaves half to the vCPUs.
  const std::size_t left = rows > kHeadRows + 2 ? rows - kHeadRows - 2 : 0;
  const std::size_t for_memory = std::max(kLeastRows, std::min(state.backends.size(), left / 2));
  const std::size_t for_cpus = std::max(kLeastRows, left > for_memory ? left - for_memory : 0);
  text += CpuTable(view, for_cpus) + "\n" + MemoryTable(view, for_memory);
  return Cut(text, columns);
}

Json TopJson(const TopView& view) {
  Json cpus = Json::array();
  for (const CpuActivity& cpu : view.cpus) {
    cpus.push_back({{"index", cpu.index},
                    {"host_thread", cpu.host_thread},
                    {"use", OrNull(cpu.use)},
                    {"exits_per_second", OrNull(cpu.exits_per_second)}});
  }
  Json backends = Json::array();
  for (const VmState::Backend& backend : view.state.backends) {
    backends.push_back(
        {{"id", backend.id}, {"size", backend.size}, {"allocated", OrNull(backend.allocated)}});
  }
  return {{"name", view.state.name},
          {"state", view.state.run_state},
          {"seconds", view.seconds},
          {"cpu_use", OrNull(view.CpuUse())},
          {"exits_per_second", OrNull(view.ExitsPerSecond())},
          {"memory", OrNull(view.state.memory)},
          {"allocated", OrNull(view.state.Allocated())},
          {"dirty_bytes_per_second", OrNull(view.dirty_bytes_per_second)},
          {"conversions_per_second", OrNull(view.conversions_per_second)},
          {"vcpus", std::move(cpus)},
          {"memory_backends", std::move(backends)}};
}

}  // namespace holdfast::apps
