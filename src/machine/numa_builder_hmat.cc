// SPDX-License-Identifier: Apache-2.0
// NumaBuilder's part for -numa hmat-lb and hmat-cache.
#include <algorithm>
#include <limits>

#include <fmt/format.h>

#include <holdfast/units.h>

#include "machine/numa_builder.h"

namespace holdfast::machine {
namespace {

// An entry of the guest's table has 16 bits; all ones means unreachable.
constexpr std::uint64_t kLargestEntry = std::numeric_limits<std::uint16_t>::max() - 1;

tl::unexpected<Error> Refuse(std::string message, std::string hint) {
  return Fail(Errc::kInvalidArgument, std::move(message), std::move(hint));
}

tl::unexpected<Error> TooFarApart(std::string_view what, std::uint64_t value,
                                  const NumaHmatLbOption& option, std::string_view others) {
  return Refuse(fmt::format("{} {} between initiator={} and target={} should not differ from "
                            "previously entered {} on more than {}",
                            what, value, option.initiator, option.target, others, kLargestEntry),
                "The guest is told 16 bits of each value, in one unit for all of a kind: round "
                "them.");
}

// The largest power of ten that divides `value`, which is not 0.
std::uint64_t DecimalUnit(std::uint64_t value) noexcept {
  std::uint64_t unit = 1;
  for (; value % 10 == 0; value /= 10) unit *= 10;
  return unit;
}

}  // namespace

Status NumaBuilder::CheckLocality(const NumaHmatLbOption& option) const {
  const std::string ids = fmt::format("Node ids are 0 to {}.", count_ == 0 ? 0 : count_ - 1);
  if (option.initiator >= count_) {
    return Refuse(
        fmt::format("Invalid initiator={}, it should be less than {}", option.initiator, count_),
        ids);
  }
  if (option.target >= count_) {
    return Refuse(
        fmt::format("Invalid target={}, it should be less than {}", option.target, count_), ids);
  }
  if (!nodes_[option.initiator].has_cpu) {
    return Refuse(fmt::format("Invalid initiator={}, it isn't an initiator proximity domain",
                              option.initiator),
                  "An initiator is a node that was given CPUs by an option before this one.");
  }
  if (!Present(option.target)) {
    return Refuse(fmt::format("The target={} should point to an existing node", option.target),
                  "Write the -numa node option first.");
  }
  return {};
}

Status NumaBuilder::Add(const NumaHmatLbOption& option) {
  HF_TRY_STATUS(NeedHmat());
  HF_TRY_STATUS(CheckLocality(option));
  auto table = std::ranges::find_if(localities_, [&](const HmatLocality& known) {
    return known.hierarchy == option.hierarchy && known.data_type == option.data_type;
  });
  const bool is_new = table == localities_.end();
  HmatLocality changed = is_new ? HmatLocality{.hierarchy = option.hierarchy,
                                               .data_type = option.data_type,
                                               .base = 0,
                                               .entries = {}}
                                : *table;
  Node& target = nodes_[option.target];
  if (IsLatency(option.data_type)) {
    HF_TRY_STATUS(AddLatency(changed, option));
    target.has_latency = target.has_latency || *option.latency != 0;
  } else {
    HF_TRY_STATUS(AddBandwidth(changed, option));
    target.has_bandwidth = target.has_bandwidth || *option.bandwidth != 0;
  }
  if (is_new) {
    localities_.push_back(std::move(changed));
  } else {
    *table = std::move(changed);
  }
  return {};
}

namespace {

Status CheckNew(const HmatLocality& table, const NumaHmatLbOption& option, std::string_view what) {
  const bool known = std::ranges::any_of(table.entries, [&](const HmatLocality::Entry& entry) {
    return entry.initiator == option.initiator && entry.target == option.target;
  });
  if (!known) return {};
  return Refuse(fmt::format("Duplicate configuration of the {} for initiator={} and target={}",
                            what, option.initiator, option.target),
                "Give each pair one value of a kind.");
}

void Append(HmatLocality& table, const NumaHmatLbOption& option, std::uint64_t value) {
  table.entries.push_back({.initiator = static_cast<unsigned>(option.initiator),
                           .target = static_cast<unsigned>(option.target),
                           .value = value});
}

std::uint64_t Largest(const HmatLocality& table) noexcept {
  std::uint64_t largest = 0;
  for (const HmatLocality::Entry& entry : table.entries) largest = std::max(largest, entry.value);
  return largest;
}

}  // namespace

// The unit is the largest power of ten that divides all latencies.
Status NumaBuilder::AddLatency(HmatLocality& table, const NumaHmatLbOption& option) {
  if (!option.latency) {
    return Refuse("Missing 'latency' option", "Add latency=NANOSECONDS.");
  }
  if (option.bandwidth) {
    return Refuse("Invalid option 'bandwidth' since the data type is latency",
                  "Leave it out, or write a data-type of bandwidth.");
  }
  HF_TRY_STATUS(CheckNew(table, option, "latency"));
  Append(table, option, *option.latency);
  if (*option.latency == 0) return {};
  const std::uint64_t unit = DecimalUnit(*option.latency);
  table.base = table.base == 0 ? unit : std::min(table.base, unit);
  // The table carries picoseconds, in 64 bits.
  if (Largest(table) / table.base > kLargestEntry || !CheckedMul(table.base, 1000)) {
    return TooFarApart("Latency", *option.latency, option, "min or max values");
  }
  return {};
}

// The unit is the largest power of two that divides all bandwidths.
Status NumaBuilder::AddBandwidth(HmatLocality& table, const NumaHmatLbOption& option) {
  if (!option.bandwidth) {
    return Refuse("Missing 'bandwidth' option", "Add bandwidth=BYTES_A_SECOND.");
  }
  if (option.latency) {
    return Refuse("Invalid option 'latency' since the data type is bandwidth",
                  "Leave it out, or write a data-type of latency.");
  }
  if (*option.bandwidth % kMiB != 0) {
    return Refuse(fmt::format("Bandwidth {} between initiator={} and target={} should be 1MB "
                              "aligned",
                              *option.bandwidth, option.initiator, option.target),
                  "Write it with the suffix M or G.");
  }
  HF_TRY_STATUS(CheckNew(table, option, "bandwidth"));
  Append(table, option, *option.bandwidth);
  if (*option.bandwidth == 0) return {};
  const std::uint64_t unit = *option.bandwidth & (~*option.bandwidth + 1);
  table.base = table.base == 0 ? unit : std::min(table.base, unit);
  if (Largest(table) / table.base > kLargestEntry) {
    return TooFarApart("Bandwidth", *option.bandwidth, option, "values");
  }
  return {};
}

Status NumaBuilder::Add(const HmatCache& cache) {
  constexpr unsigned kLevels = 3;
  HF_TRY_STATUS(NeedHmat());
  if (cache.node >= count_) {
    return Refuse(fmt::format("Invalid node-id={}, it should be less than {}", cache.node, count_),
                  "Write the -numa node option first.");
  }
  if (!nodes_[cache.node].has_latency || !nodes_[cache.node].has_bandwidth) {
    return Refuse(fmt::format("The latency and bandwidth information of node-id={} should be "
                              "provided before memory side cache attributes",
                              cache.node),
                  fmt::format("Write -numa hmat-lb options with target={} first.", cache.node));
  }
  if (cache.level < 1 || cache.level > kLevels) {
    return Refuse(fmt::format("Invalid level={}, it should be larger than 0 and less than or "
                              "equal to {}",
                              cache.level, kLevels),
                  "Level 1 is the nearest to the memory.");
  }
  auto& levels = caches_[cache.node];
  if (levels[cache.level]) {
    return Refuse(fmt::format("Duplicate configuration of the side cache for node-id={} and "
                              "level={}",
                              cache.node, cache.level),
                  "Give each level once.");
  }
  if (cache.level > 1) {
    const auto& lower = levels[cache.level - 1U];
    if (!lower) {
      return Refuse(fmt::format("Cache level={} shall be defined first", cache.level - 1),
                    "Write the levels in ascending order.");
    }
    if (cache.size <= lower->size) {
      return Refuse(fmt::format("Invalid size={}, the size of level={} should be larger than the "
                                "size({}) of level={}",
                                cache.size, cache.level, lower->size, cache.level - 1),
                    "Each level is larger than the one below.");
    }
  }
  levels[cache.level] = cache;
  return {};
}

}  // namespace holdfast::machine
