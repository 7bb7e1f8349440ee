// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <array>

#include "apps/options_parse.h"
#include "object/property.h"

namespace holdfast::apps {
namespace {

using object::Property;
using object::PropertyType;

// -smp as written; 0 means not given, for a 0 on the command line is an error.
struct Smp {
  std::uint64_t cpus = 0;
  std::uint64_t max_cpus = 0;
  std::uint64_t sockets = 0;
  std::uint64_t cores = 0;
  std::uint64_t threads = 0;
  std::uint64_t fixed = 1;  // levels this machine does not have; QEMU allows them as 1
};

// QEMU's counts are 32 bits; this keeps every product below far from 64.
constexpr std::uint64_t kMostOfALevel = 65535;

template <std::uint64_t Smp::* Member>
Status SetCount(Smp& smp, const object::PropertyValue& value) {
  const std::uint64_t count = std::get<std::uint64_t>(value);
  if (count == 0) {
    return Fail(Errc::kInvalidArgument,
                "Invalid CPU topology: CPU topology parameters must be greater than zero",
                fmt::format("A machine has 1 to {} CPUs.", machine::kMaxCpus));
  }
  smp.*Member = count;
  return {};
}

constexpr object::PropertyInfo Count(std::string_view name, std::string_view description) {
  return {
      .name = name, .type = PropertyType::kUint, .description = description, .max = kMostOfALevel};
}
constexpr object::PropertyInfo One(std::string_view name) {
  return {.name = name,
          .type = PropertyType::kUint,
          .description = "this machine does not have the level: 1",
          .max = 1};
}

constexpr Property<Smp> kProperties[] = {
    {Count("cpus", "CPUs the machine starts with"), SetCount<&Smp::cpus>},
    {Count("maxcpus", "CPUs it can have"), SetCount<&Smp::max_cpus>},
    {Count("sockets", "sockets"), SetCount<&Smp::sockets>},
    {Count("cores", "cores in a socket"), SetCount<&Smp::cores>},
    {Count("threads", "threads in a core"), SetCount<&Smp::threads>},
    {One("dies"), SetCount<&Smp::fixed>},
    {One("clusters"), SetCount<&Smp::fixed>},
    {One("modules"), SetCount<&Smp::fixed>},
    {One("books"), SetCount<&Smp::fixed>},
    {One("drawers"), SetCount<&Smp::fixed>},
};

// Fills in what is missing as QEMU does since 6.2: cores before sockets before threads.
Result<machine::CpuTopology> Complete(const Smp& smp) {
  std::uint64_t cpus = smp.cpus;
  std::uint64_t max_cpus = smp.max_cpus;
  std::uint64_t sockets = smp.sockets;
  std::uint64_t cores = smp.cores;
  std::uint64_t threads = smp.threads;
  const auto or_one = [](std::uint64_t count) { return count == 0 ? 1 : count; };
  if (cpus == 0 && max_cpus == 0) {
    sockets = or_one(sockets);
    cores = or_one(cores);
    threads = or_one(threads);
  } else {
    if (max_cpus == 0) max_cpus = cpus;
    if (cores == 0) {
      sockets = or_one(sockets);
      threads = or_one(threads);
      cores = max_cpus / (sockets * threads);
    } else if (sockets == 0) {
      threads = or_one(threads);
      sockets = max_cpus / (cores * threads);
    }
    if (threads == 0) threads = max_cpus / (sockets * cores);
  }
  const std::uint64_t total = sockets * cores * threads;
  if (max_cpus == 0) max_cpus = total;
  if (cpus == 0) cpus = max_cpus;
  const std::string hierarchy =
      fmt::format("sockets ({}) * cores ({}) * threads ({})", sockets, cores, threads);
  if (total != max_cpus) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Invalid CPU topology: product of the hierarchy must match maxcpus: "
                            "{} != maxcpus ({})",
                            hierarchy, max_cpus),
                "Leave one of sockets, cores and threads out to have it calculated.");
  }
  if (max_cpus < cpus) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Invalid CPU topology: maxcpus must be equal to or greater than smp: "
                            "{} == maxcpus ({}) < smp_cpus ({})",
                            hierarchy, max_cpus, cpus),
                "Raise maxcpus or leave it out.");
  }
  if (max_cpus > machine::kMaxCpus) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Invalid SMP CPUs {}. The max CPUs supported by machine 'q35' is {}",
                            max_cpus, machine::kMaxCpus),
                fmt::format("Write a number from 1 to {}.", machine::kMaxCpus));
  }
  const auto narrow = [](std::uint64_t count) { return static_cast<unsigned>(count); };
  return machine::CpuTopology{.cpus = narrow(cpus),
                              .max_cpus = narrow(max_cpus),
                              .sockets = narrow(sockets),
                              .cores = narrow(cores),
                              .threads = narrow(threads)};
}

}  // namespace

Status ParseSmp(Options& options, std::string_view argument) {
  HF_TRY(const object::KeyValues values, object::ParseKeyValues(argument, "cpus"));
  if (object::WantsHelp(values)) {
    options.print = object::DescribeProperties<Smp>("smp-opts", kProperties);
    return {};
  }
  Smp smp;
  HF_TRY_STATUS(object::SetProperties<Smp>(kProperties, {}, smp, values));
  HF_TRY(options.machine.smp, Complete(smp));
  return {};
}

}  // namespace holdfast::apps
