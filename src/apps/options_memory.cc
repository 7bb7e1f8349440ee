// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <holdfast/units.h>

#include "apps/options_parse.h"
#include "machine/boot/ram_layout.h"

namespace holdfast::apps {
namespace {

// QEMU rounds -m up to this.
constexpr std::uint64_t kRamAlignment = 8192;
constexpr std::uint64_t kMostSlots = 256;

// Whether `text` has a size's form, so that the only thing wrong with it is its value.
bool LooksLikeSize(std::string_view text) {
  if (text.starts_with('-')) text.remove_prefix(1);
  const bool hex = text.starts_with("0x") || text.starts_with("0X");
  if (hex) text.remove_prefix(2);
  const std::string_view digits = hex ? "0123456789abcdefABCDEF" : "0123456789.";
  const std::size_t end = std::min(text.find_first_not_of(digits), text.size());
  if (end == 0) return false;
  text.remove_prefix(end);
  return text.empty() ||
         (text.size() == 1 && std::string_view("bBkKmMgGtTpPeE").find(text[0]) != text.npos);
}

Result<std::uint64_t> ParseMemorySize(std::string_view name, std::string_view text,
                                      std::uint64_t unit) {
  if (const auto size = ParseSize(text, unit)) return *size;
  if (LooksLikeSize(text)) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Value '{}' is out of range for parameter '{}'", text, name),
                "A size is at least 0 and below 2^64.");
  }
  return Fail(Errc::kInvalidArgument,
              fmt::format("Parameter '{}' expects a non-negative number below 2^64", name),
              "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta- and "
              "exabytes, respectively.");
}

// QEMU's checks of slots and maxmem.
Status CheckHotplug(const Options& options, std::uint64_t size) {
  if (options.ram_slots > 0 && !options.max_ram_size) {
    return Fail(Errc::kInvalidArgument, "slots specified but no max-size", "Add maxmem=SIZE.");
  }
  if (!options.max_ram_size) return {};
  const std::uint64_t max_size = *options.max_ram_size;
  if (max_size < size) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("invalid value of maxmem: maximum memory size (0x{:x}) must be at "
                            "least the initial memory size (0x{:x})",
                            max_size, size),
                "Raise maxmem or leave it out.");
  }
  if (options.ram_slots > kMostSlots) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("unsupported amount of memory slots: {}", options.ram_slots),
                fmt::format("QEMU's limit is {}.", kMostSlots));
  }
  if (max_size == size) {
    if (options.ram_slots == 0) return {};
    return Fail(Errc::kInvalidArgument,
                fmt::format("invalid value of maxmem: memory slots were specified but maximum "
                            "memory size (0x{:x}) is equal to the initial memory size (0x{:x})",
                            max_size, size),
                "Leave slots and maxmem out.");
  }
  if (IsPageAligned(max_size)) return {};
  return Fail(Errc::kInvalidArgument,
              "maximum memory size must by aligned to multiple of 4096 bytes",
              fmt::format("{} is not.", max_size));
}

Error TooManyBackends(std::string_view id) {
  return Error(
      Errc::kInvalidArgument,
      fmt::format("object's id '{}' is reserved for the default RAM backend, it can't be used for "
                  "any other purposes",
                  id),
      fmt::format("Change the object's 'id' to something else or disable automatic creation of the "
                  "default RAM backend by setting 'memory-backend={}' with '-machine'.",
                  id));
}

// -machine memory-backend=.
Result<object::MemoryBackend*> NamedBackend(const Options& options) {
  const std::string& id = options.memory_backend;
  if (!options.mem_path.empty()) {
    return Fail(Errc::kInvalidArgument,
                "'-mem-path' can't be used together with'-machine memory-backend'",
                "Leave -mem-path out: the backend says where its memory is.");
  }
  auto* const ram = dynamic_cast<object::MemoryBackend*>(options.objects.Find(id));
  if (ram == nullptr) {
    return Fail(
        Errc::kNotFound,
        fmt::format("-machine memory-backend={0}: Memory backend '{0}' not found", id),
        fmt::format("Make it with -object memory-backend-guest-memfd,id={},size=SIZE.", id));
  }
  if (options.ram_size && *options.ram_size != ram->size()) {
    return Fail(Errc::kInvalidArgument,
                "Machine memory size does not match the size of the memory backend",
                fmt::format("-m says {}, '{}' has {}: leave -m out.", FormatSize(*options.ram_size),
                            ram->id(), FormatSize(ram->size())));
  }
  return ram;
}

// What -m alone makes.
Result<object::MemoryBackend*> DefaultBackend(Options& options, std::uint64_t size) {
  if (options.objects.Find(kDefaultRamId) != nullptr) return Fail(TooManyBackends(kDefaultRamId));
  object::KeyValues values = {{.key = "id", .value = std::string(kDefaultRamId)},
                              {.key = "size", .value = std::to_string(size)}};
  const bool in_file = !options.mem_path.empty();
  if (in_file) values.push_back({.key = "mem-path", .value = options.mem_path});
  if (options.mem_prealloc) values.push_back({.key = "prealloc", .value = "on"});
  values.push_back(
      {.key = "qom-type", .value = in_file ? "memory-backend-file" : "memory-backend-guest-memfd"});
  HF_TRY(object::Object * made, options.objects.Add(values));
  return dynamic_cast<object::MemoryBackend*>(made);
}

}  // namespace

Status SetRamSize(Options& options, std::uint64_t size) {
  options.ram_size.reset();
  if (size == 0) return {};  // QEMU's word for the default
  const auto rounded = CheckedAdd(size, kRamAlignment - 1);
  if (!rounded) {
    return Fail(Errc::kInvalidArgument, fmt::format("ram size {} is too large", size),
                "The largest machine has 1 TiB of address space.");
  }
  options.ram_size = AlignDown(*rounded, kRamAlignment);
  return {};
}

Status ParseMemory(Options& options, std::string_view argument) {
  HF_TRY(const object::KeyValues values, object::ParseKeyValues(argument, "size"));
  for (const object::KeyValue& entry : values) {
    if (entry.key == "size") {
      // A number alone is megabytes; QEMU says the same of an empty one as of a bad one.
      HF_TRY(const std::uint64_t size, ParseMemorySize("size", entry.value, kMiB));
      HF_TRY_STATUS(SetRamSize(options, size));
    } else if (entry.key == "maxmem") {
      HF_TRY(options.max_ram_size, ParseMemorySize("maxmem", entry.value, 1));
    } else if (entry.key == "slots") {
      const object::PropertyInfo slots{.name = "slots", .type = object::PropertyType::kUint};
      const auto value = object::ParseProperty(slots, entry.value);
      if (!value) {
        return Fail(Errc::kInvalidArgument, "Parameter 'slots' expects a number",
                    fmt::format("It got '{}'.", entry.value));
      }
      options.ram_slots = std::get<std::uint64_t>(*value);
    } else {
      return Fail(Errc::kInvalidArgument, fmt::format("Invalid parameter '{}'", entry.key),
                  "Holdfast accepts here: size, slots, maxmem.");
    }
  }
  options.ram_words = fmt::format("-m {}", argument);
  return {};
}

Status ParseObject(Options& options, std::string_view argument) {
  if (!argument.starts_with('{')) {
    HF_TRY(const object::KeyValues values, object::ParseKeyValues(argument, "qom-type"));
    if (object::WantsHelp(values)) {
      const std::string& type = values.front().value;
      HF_TRY(options.print, object::ObjectHelp(type == "help" || type == "?" ? "" : type));
      return {};
    }
  }
  HF_TRY([[maybe_unused]] object::Object * made, options.objects.AddFromOption(argument));
  return {};
}

Status FinishMemory(Options& options) {
  object::MemoryBackend* named = nullptr;
  if (!options.memory_backend.empty()) {
    HF_TRY(named, NamedBackend(options));
    options.machine.ram_option = "-machine memory-backend=" + options.memory_backend;
  }
  const std::uint64_t size =
      named != nullptr ? named->size() : options.ram_size.value_or(machine::kDefaultRamSize);
  if (Status status = CheckHotplug(options, size); !status)
    return Fail(std::move(status).error().Wrap(options.ram_words));
  options.machine.ram_slots = options.ram_slots;
  options.machine.max_ram_size = options.max_ram_size.value_or(0);
  // What no host could run is refused before anything is made. The host may allow less.
  auto plan = machine::boot::PlanRam(size, machine::boot::kMaxAddressBits);
  if (!plan) return Fail(std::move(plan).error().Wrap(options.machine.ram_option));
  HF_TRY_STATUS(FinishNuma(options, size));
  options.ram.clear();
  for (const machine::NumaNode& node : options.machine.numa.nodes) {
    if (node.memdev.empty()) continue;
    options.ram.push_back(dynamic_cast<object::MemoryBackend*>(options.objects.Find(node.memdev)));
  }
  if (!options.ram.empty()) return {};
  if (named == nullptr) {
    HF_TRY(named, DefaultBackend(options, size));
  }
  options.ram = {named};
  return {};
}

}  // namespace holdfast::apps
