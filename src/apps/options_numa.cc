// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <array>
#include <charconv>
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "apps/options_parse.h"

namespace holdfast::apps {
namespace {

using machine::HmatCache;
using machine::NumaCpuOption;
using machine::NumaDistOption;
using machine::NumaHmatLbOption;
using machine::NumaNodeOption;
using object::KeyValue;
using object::KeyValues;
using object::Property;
using object::PropertyInfo;
using object::PropertyType;
using object::PropertyValue;
using Word = std::string_view;

// A property's number of `bits` bits; QEMU's words for one that is too large.
Result<std::uint64_t> Narrow(Word name, const PropertyValue& value, unsigned bits) {
  const std::uint64_t number = std::get<std::uint64_t>(value);
  const std::uint64_t largest = (1ULL << bits) - 1;
  if (number <= largest) return number;
  return Fail(Errc::kInvalidArgument, fmt::format("Parameter '{}' expects uint{}_t", name, bits),
              fmt::format("{} is larger than {}.", number, largest));
}

constexpr PropertyInfo Number(Word name, Word description) {
  return {.name = name, .type = PropertyType::kUint, .description = description};
}
constexpr PropertyInfo Size(Word name, Word description) {
  return {.name = name, .type = PropertyType::kSize, .description = description};
}
constexpr PropertyInfo Enum(Word name, std::span<const Word> words, Word description) {
  return {.name = name, .type = PropertyType::kEnum, .description = description, .choices = words};
}

// ---- node and dist ------------------------------------------------------------------------------

constexpr Property<NumaNodeOption> kNode[] = {
    {Number("nodeid", "the node's number (default: how many there are already)"),
     [](NumaNodeOption& node, const PropertyValue& value) -> Status {
       HF_TRY(node.node_id, Narrow("nodeid", value, 16));
       return {};
     }},
    {{.name = "cpus",
      .type = PropertyType::kUint16List,
      .description = "its CPUs: an index or a range; may be given several times"},
     [](NumaNodeOption& node, const PropertyValue& value) -> Status {
       const auto& part = std::get<std::vector<std::uint64_t>>(value);
       node.cpus.insert(node.cpus.end(), part.begin(), part.end());
       return {};
     }},
    {Size("mem", "only on machines older than this one: use memdev"),
     [](NumaNodeOption& node, const PropertyValue& value) -> Status {
       node.mem = std::get<std::uint64_t>(value);
       return {};
     }},
    {{.name = "memdev", .description = "id of the memory backend that is its memory"},
     [](NumaNodeOption& node, const PropertyValue& value) -> Status {
       node.memdev = std::get<std::string>(value);
       return {};
     }},
    {Number("initiator", "the node of the CPUs nearest to its memory (needs hmat=on)"),
     [](NumaNodeOption& node, const PropertyValue& value) -> Status {
       HF_TRY(node.initiator, Narrow("initiator", value, 16));
       return {};
     }},
};

constexpr Property<NumaDistOption> kDist[] = {
    {Number("src", "the node a CPU is in"),
     [](NumaDistOption& dist, const PropertyValue& value) -> Status {
       HF_TRY(dist.src, Narrow("src", value, 16));
       return {};
     }},
    {Number("dst", "the node of the memory"),
     [](NumaDistOption& dist, const PropertyValue& value) -> Status {
       HF_TRY(dist.dst, Narrow("dst", value, 16));
       return {};
     }},
    {Number("val", "how far: 10 is local, 255 unreachable"),
     [](NumaDistOption& dist, const PropertyValue& value) -> Status {
       HF_TRY(const std::uint64_t val, Narrow("val", value, 8));
       dist.val = static_cast<std::uint8_t>(val);
       return {};
     }},
};

// ---- cpu ----------------------------------------------------------------------------------------

// The ids of a CPU's place are signed in QEMU, which shows in what it says of a bad one.
Result<std::int64_t> ParsePlace(Word name, const std::string& text) {
  std::int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (!text.empty() && rest == end && error == std::errc{}) return number;
  return Fail(Errc::kInvalidArgument, fmt::format("Parameter '{}' expects an int64 value", name),
              fmt::format("It got '{}'.", text));
}

struct Place {
  Word name;
  std::optional<std::int64_t> NumaCpuOption::* field;
  Word description;
};
constexpr Place kPlaces[] = {
    {"node-id", &NumaCpuOption::node_id, "the node the CPUs are in"},
    {"socket-id", &NumaCpuOption::socket_id, "their socket (default: all)"},
    {"die-id", &NumaCpuOption::die_id, "this machine does not have the level"},
    {"cluster-id", &NumaCpuOption::cluster_id, "this machine does not have the level"},
    {"module-id", &NumaCpuOption::module_id, "this machine does not have the level"},
    {"core-id", &NumaCpuOption::core_id, "their core in the socket (default: all)"},
    {"thread-id", &NumaCpuOption::thread_id, "their thread in the core (default: all)"},
    {"drawer-id", &NumaCpuOption::drawer_id, "this machine does not have the level"},
    {"book-id", &NumaCpuOption::book_id, "this machine does not have the level"},
};
template <std::size_t Index>
constexpr Property<NumaCpuOption> PlaceProperty() {
  return {{.name = kPlaces[Index].name, .description = kPlaces[Index].description},
          [](NumaCpuOption& cpu, const PropertyValue& value) -> Status {
            const Place& place = kPlaces[Index];
            HF_TRY(cpu.*place.field, ParsePlace(place.name, std::get<std::string>(value)));
            return {};
          }};
}
constexpr Property<NumaCpuOption> kCpu[] = {
    PlaceProperty<0>(), PlaceProperty<1>(), PlaceProperty<2>(),
    PlaceProperty<3>(), PlaceProperty<4>(), PlaceProperty<5>(),
    PlaceProperty<6>(), PlaceProperty<7>(), PlaceProperty<8>()};

// ---- hmat ---------------------------------------------------------------------------------------

// In the order of the enumerations.
constexpr std::array<Word, 4> kHierarchies = {"memory", "first-level", "second-level",
                                              "third-level"};
constexpr std::array<Word, 6> kDataTypes = {"access-latency", "read-latency",
                                            "write-latency",  "access-bandwidth",
                                            "read-bandwidth", "write-bandwidth"};
constexpr std::array<Word, 3> kAssociativities = {"none", "direct", "complex"};
constexpr std::array<Word, 3> kPolicies = {"none", "write-back", "write-through"};

constexpr Property<NumaHmatLbOption> kHmatLb[] = {
    {Number("initiator", "the node of the CPU"),
     [](NumaHmatLbOption& lb, const PropertyValue& value) -> Status {
       HF_TRY(lb.initiator, Narrow("initiator", value, 16));
       return {};
     }},
    {Number("target", "the node of the memory"),
     [](NumaHmatLbOption& lb, const PropertyValue& value) -> Status {
       HF_TRY(lb.target, Narrow("target", value, 16));
       return {};
     }},
    {Enum("hierarchy", kHierarchies, "the memory itself or a cache on its side"),
     object::SetField<&NumaHmatLbOption::hierarchy>},
    {Enum("data-type", kDataTypes, "what is given"),
     object::SetField<&NumaHmatLbOption::data_type>},
    {Number("latency", "nanoseconds"),
     [](NumaHmatLbOption& lb, const PropertyValue& value) -> Status {
       lb.latency = std::get<std::uint64_t>(value);
       return {};
     }},
    {Size("bandwidth", "bytes a second, a multiple of 1 MiB"),
     [](NumaHmatLbOption& lb, const PropertyValue& value) -> Status {
       lb.bandwidth = std::get<std::uint64_t>(value);
       return {};
     }},
};

constexpr Property<HmatCache> kHmatCache[] = {
    {Number("node-id", "the node whose memory it caches"),
     [](HmatCache& cache, const PropertyValue& value) -> Status {
       HF_TRY(const std::uint64_t node, Narrow("node-id", value, 32));
       cache.node = static_cast<unsigned>(node);
       return {};
     }},
    {Size("size", "how large it is"), object::SetField<&HmatCache::size>},
    {Number("level", "1, next to the memory, to 3"),
     [](HmatCache& cache, const PropertyValue& value) -> Status {
       HF_TRY(const std::uint64_t level, Narrow("level", value, 8));
       cache.level = static_cast<std::uint8_t>(level);
       return {};
     }},
    {Enum("associativity", kAssociativities, "how it finds a line"),
     object::SetField<&HmatCache::associativity>},
    {Enum("policy", kPolicies, "when it writes"), object::SetField<&HmatCache::policy>},
    {Number("line", "bytes of a line"),
     [](HmatCache& cache, const PropertyValue& value) -> Status {
       HF_TRY(const std::uint64_t line, Narrow("line", value, 16));
       cache.line = static_cast<std::uint16_t>(line);
       return {};
     }},
};

// ---- All of them
// ----------------------------------------------------------------------------------

constexpr std::array<Word, 5> kTypes = {"node", "dist", "cpu", "hmat-lb", "hmat-cache"};

// The JSON form: members as on the command line, a list as an array.
Result<KeyValues> ParseJson(std::string_view text) {
  HF_TRY(const nlohmann::json json, object::ParseJsonObject(text));
  KeyValues values;
  const auto add = [&values](const std::string& key, const nlohmann::json& value) -> Status {
    if (value.is_string()) {
      values.push_back({.key = key, .value = value.get<std::string>()});
    } else if (value.is_number_integer()) {
      values.push_back({.key = key, .value = value.dump()});
    } else {
      return Fail(Errc::kInvalidArgument,
                  fmt::format("Invalid parameter type for '{}', expected: string or integer", key),
                  "Only cpus takes a list.");
    }
    return {};
  };
  for (const auto& [key, value] : json.items()) {
    if (key != "cpus" || !value.is_array()) {
      HF_TRY_STATUS(add(key, value));
    } else {
      for (const auto& cpu : value) HF_TRY_STATUS(add(key, cpu));
    }
  }
  return values;
}

template <typename Option>
Result<NumaRequest::Choice> Read(std::span<const Property<Option>> table, const KeyValues& values,
                                 std::initializer_list<Word> required) {
  Option option;
  HF_TRY_STATUS(object::SetProperties<Option>(table, {}, option, values));
  for (const Word name : required) {
    if (object::FindValue(values, name) != nullptr) continue;
    return Fail(Errc::kInvalidArgument, fmt::format("Parameter '{}' is missing", name),
                fmt::format("Add {}=VALUE.", name));
  }
  return NumaRequest::Choice(std::move(option));
}

Result<NumaRequest::Choice> ReadType(std::uint64_t type, const KeyValues& values) {
  switch (type) {
    case 0:
      return Read<NumaNodeOption>(kNode, values, {});
    case 1:
      return Read<NumaDistOption>(kDist, values, {"src", "dst", "val"});
    case 2:
      return Read<NumaCpuOption>(kCpu, values, {});
    case 3:
      return Read<NumaHmatLbOption>(kHmatLb, values,
                                    {"initiator", "target", "hierarchy", "data-type"});
    default:
      return Read<HmatCache>(kHmatCache, values,
                             {"node-id", "size", "level", "associativity", "policy", "line"});
  }
}

std::string NumaHelp() {
  return object::DescribeProperties<NumaNodeOption>("node", kNode) +
         object::DescribeProperties<NumaDistOption>("dist", kDist) +
         object::DescribeProperties<NumaCpuOption>("cpu", kCpu) +
         object::DescribeProperties<NumaHmatLbOption>("hmat-lb", kHmatLb) +
         object::DescribeProperties<HmatCache>("hmat-cache", kHmatCache);
}

}  // namespace

Status ParseNuma(Options& options, std::string_view argument) {
  HF_TRY(KeyValues values, argument.starts_with('{') ? ParseJson(argument)
                                                     : object::ParseKeyValues(argument, "type"));
  if (object::WantsHelp(values)) {
    options.print = NumaHelp();
    return {};
  }
  const std::string* const type = object::FindValue(values, "type");
  if (type == nullptr) {
    return Fail(Errc::kInvalidArgument, "Parameter 'type' is missing",
                "Write -numa node,... or dist, cpu, hmat-lb, hmat-cache.");
  }
  HF_TRY(const PropertyValue choice, object::ParseProperty(Enum("type", kTypes, {}), *type));
  std::erase_if(values, [](const KeyValue& entry) { return entry.key == "type"; });
  HF_TRY(NumaRequest::Choice option, ReadType(std::get<std::uint64_t>(choice), values));
  options.numa.push_back({std::string(argument), std::move(option)});
  return {};
}

// In the order of the command line: an option may refer only to what came before it.
Status FinishNuma(Options& options, std::uint64_t ram_size) {
  const auto size_of = [&options](std::string_view id) -> std::optional<std::uint64_t> {
    const auto* backend = dynamic_cast<object::MemoryBackend*>(options.objects.Find(id));
    if (backend == nullptr) return std::nullopt;
    return backend->size();
  };
  machine::NumaBuilder builder(options.machine.smp, options.hmat, size_of);
  for (const NumaRequest& request : options.numa) {
    Status added =
        std::visit([&](const auto& option) { return builder.Add(option); }, request.option);
    if (!added) return Fail(std::move(added).error().Wrap("-numa " + request.argument));
  }
  HF_TRY(options.machine.numa,
         builder.Finish(ram_size, !options.memory_backend.empty(), options.warnings));
  return {};
}

}  // namespace holdfast::apps
