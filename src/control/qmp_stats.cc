// SPDX-License-Identifier: Apache-2.0
// query-stats and query-stats-schemas: KVM's counters, and what only this program knows.
#include <fmt/format.h>
#include <holdfast/vm.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "control/host_stats.h"
#include "control/qmp_commands.h"
#include "kvm/stats.h"
#include "machine/machine.h"

namespace holdfast::control {
namespace {

using kvm::StatDescription;

constexpr std::string_view kKvm = "kvm";
constexpr std::string_view kOwn = "holdfast";

constexpr std::array<std::string_view, 5> kTypeNames = {"cumulative", "instant", "peak",
                                                        "linear-histogram", "log2-histogram"};
constexpr std::array<std::string_view, 5> kUnitNames = {"", "bytes", "seconds", "cycles",
                                                        "boolean"};

// What a client wants to see of one provider.
class Filter {
 public:
  Filter(const Json& arguments, std::string_view provider) {
    const auto providers = arguments.find("providers");
    if (providers == arguments.end()) return;
    wanted_ = false;
    for (const Json& one : *providers) {
      if (one["provider"] != provider) continue;
      wanted_ = true;
      if (const auto names = one.find("names"); names != one.end()) {
        all_names_ = false;
        for (const Json& name : *names) names_.push_back(name.get<std::string>());
      } else {
        all_names_ = true;
      }
    }
  }
  bool wanted() const noexcept { return wanted_ && (all_names_ || !names_.empty()); }
  bool Has(std::string_view name) const {
    return all_names_ || std::find(names_.begin(), names_.end(), name) != names_.end();
  }

 private:
  bool wanted_ = true;
  bool all_names_ = true;
  std::vector<std::string> names_;
};

Json DescribeStat(const StatDescription& stat) {
  Json one = {{"name", stat.name},
              {"type", kTypeNames.at(static_cast<std::size_t>(stat.type))},
              {"exponent", stat.exponent}};
  if (stat.unit != StatDescription::Unit::kNone) {
    one["unit"] = kUnitNames.at(static_cast<std::size_t>(stat.unit));
  }
  // As in QEMU the base stands only where the exponent needs one.
  if (stat.exponent != 0) one["base"] = stat.binary_base ? 2 : 10;
  if (stat.type == StatDescription::Type::kLinearHistogram) one["bucket-size"] = stat.bucket_size;
  return one;
}

Json StatValue(const StatDescription& stat, const std::vector<std::uint64_t>& numbers) {
  if (stat.unit == StatDescription::Unit::kBoolean) return numbers.front() != 0;
  const bool histogram = stat.type == StatDescription::Type::kLinearHistogram ||
                         stat.type == StatDescription::Type::kLog2Histogram;
  if (histogram || numbers.size() > 1) return numbers;
  return numbers.front();
}

Result<Json> ReadKvm(const kvm::Stats& stats, const Filter& filter) {
  HF_TRY(const auto values, stats.Read());
  Json list = Json::array();
  for (std::size_t i = 0; i < values.size(); ++i) {
    const StatDescription& stat = stats.descriptions()[i];
    if (!filter.Has(stat.name)) continue;
    list.push_back({{"name", stat.name}, {"value", StatValue(stat, values[i])}});
  }
  return list;
}

Json ReadOwn(const std::vector<HostStat>& stats, const Filter& filter) {
  Json list = Json::array();
  for (const HostStat& stat : stats) {
    if (filter.Has(stat.description.name)) {
      list.push_back(
          {{"name", stat.description.name}, {"value", StatValue(stat.description, stat.values)}});
    }
  }
  return list;
}

Json ResultOf(std::string_view provider, Json stats) {
  return {{"provider", provider}, {"stats", std::move(stats)}};
}

QmpResult QueryVmStats(VmContext& vm, const Filter& kvm_filter, const Filter& own_filter) {
  Json list = Json::array();
  if (kvm_filter.wanted()) {
    HF_QMP_TRY(const kvm::Stats stats, kvm::Stats::Open(vm.vm().fd()));
    HF_QMP_TRY(Json values, ReadKvm(stats, kvm_filter));
    list.push_back(ResultOf(kKvm, std::move(values)));
  }
  if (own_filter.wanted()) list.push_back(ResultOf(kOwn, ReadOwn(VmHostStats(vm), own_filter)));
  return list;
}

bool WantsCpu(const Json& arguments, const std::string& path) {
  const auto vcpus = arguments.find("vcpus");
  return vcpus == arguments.end() || std::find(vcpus->begin(), vcpus->end(), path) != vcpus->end();
}

QmpResult QueryVcpuStats(VmContext& vm, const Json& arguments, const Filter& kvm_filter,
                         const Filter& own_filter) {
  Json list = Json::array();
  for (const machine::VcpuInfo& cpu : vm.machine().vcpus()) {
    const std::string path = CpuPath(cpu.index);
    if (!WantsCpu(arguments, path)) continue;
    if (kvm_filter.wanted()) {
      HF_QMP_TRY(const kvm::Stats* const stats, vm.machine().VcpuStats(cpu.index));
      HF_QMP_TRY(Json values, ReadKvm(*stats, kvm_filter));
      Json one = ResultOf(kKvm, std::move(values));
      one["qom-path"] = path;
      list.push_back(std::move(one));
    }
    if (own_filter.wanted()) {
      Json one = ResultOf(kOwn, ReadOwn(VcpuHostStats(cpu), own_filter));
      one["qom-path"] = path;
      list.push_back(std::move(one));
    }
  }
  return list;
}

QmpResult QueryStats(VmContext& vm, const Json& arguments) {
  const Filter kvm_filter(arguments, kKvm);
  const Filter own_filter(arguments, kOwn);
  return arguments["target"] == "vm" ? QueryVmStats(vm, kvm_filter, own_filter)
                                     : QueryVcpuStats(vm, arguments, kvm_filter, own_filter);
}

Json SchemaOf(std::string_view provider, std::string_view target, Json stats) {
  return {{"provider", provider}, {"target", target}, {"stats", std::move(stats)}};
}

Json DescribeKvm(const kvm::Stats& stats) {
  Json list = Json::array();
  for (const StatDescription& stat : stats.descriptions()) list.push_back(DescribeStat(stat));
  return list;
}

Json DescribeOwn(const std::vector<HostStat>& stats) {
  Json list = Json::array();
  for (const HostStat& stat : stats) list.push_back(DescribeStat(stat.description));
  return list;
}

QmpResult QueryStatsSchemas(VmContext& vm, const Json& arguments) {
  const std::string provider = arguments.value("provider", std::string());
  const std::vector<machine::VcpuInfo> cpus = vm.machine().vcpus();
  Json list = Json::array();
  if (provider.empty() || provider == kKvm) {
    HF_QMP_TRY(const kvm::Stats stats, kvm::Stats::Open(vm.vm().fd()));
    list.push_back(SchemaOf(kKvm, "vm", DescribeKvm(stats)));
    HF_QMP_TRY(const kvm::Stats* const of_cpu, vm.machine().VcpuStats(cpus.front().index));
    list.push_back(SchemaOf(kKvm, "vcpu", DescribeKvm(*of_cpu)));
  }
  if (provider.empty() || provider == kOwn) {
    list.push_back(SchemaOf(kOwn, "vm", DescribeOwn(VmHostStats(vm))));
    list.push_back(SchemaOf(kOwn, "vcpu", DescribeOwn(VcpuHostStats(cpus.front()))));
  }
  return list;
}

}  // namespace

void DefineStatsCommands(Schema& schema) {
  schema.Enum("StatsTarget", {"vm", "vcpu"});
  schema.Enum("StatsProvider", {std::string(kKvm), std::string(kOwn)});
  schema.Struct("StatsRequest", {{"provider", "StatsProvider"}, {"names?", "[str]"}});
  schema.Struct("StatsVCPUFilter", {{"vcpus?", "[str]"}});
  schema.Union("StatsFilter", {{"target", "StatsTarget"}, {"providers?", "[StatsRequest]"}},
               "target", {{"vcpu", "StatsVCPUFilter"}});
  schema.Alternate("StatsValue", {"uint64", "bool", "[uint64]"});
  schema.Struct("Stats", {{"name", "str"}, {"value", "StatsValue"}});
  schema.Struct("StatsResult",
                {{"provider", "StatsProvider"}, {"qom-path?", "str"}, {"stats", "[Stats]"}});
  schema.AddCommand("query-stats",
                    {.arguments = "StatsFilter", .result = "[StatsResult]", .run = QueryStats});

  schema.Enum("StatsType", {kTypeNames.begin(), kTypeNames.end()});
  schema.Enum("StatsUnit", {kUnitNames.begin() + 1, kUnitNames.end()});
  schema.Struct("StatsSchemaValue", {{"name", "str"},
                                     {"type", "StatsType"},
                                     {"unit?", "StatsUnit"},
                                     {"base?", "int8"},
                                     {"exponent", "int16"},
                                     {"bucket-size?", "uint32"}});
  schema.Struct(
      "StatsSchema",
      {{"provider", "StatsProvider"}, {"target", "StatsTarget"}, {"stats", "[StatsSchemaValue]"}});
  schema.Struct("StatsSchemasArguments", {{"provider?", "StatsProvider"}});
  schema.AddCommand(
      "query-stats-schemas",
      {.arguments = "StatsSchemasArguments", .result = "[StatsSchema]", .run = QueryStatsSchemas});
}

}  // namespace holdfast::control
