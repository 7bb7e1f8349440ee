// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <holdfast/dirty_rings.h>

#include <algorithm>
#include <array>
#include <bit>

#include "apps/options_parse.h"
#include "object/property.h"
#include "object/suggest.h"

namespace holdfast::apps {
namespace {

using object::KeyValue;
using object::KeyValues;
using object::Property;
using object::PropertyType;
using object::PropertyValue;
using Words = std::array<std::string_view, 1>;

constexpr Words kOn = {"on"};
constexpr Words kOff = {"off"};
constexpr std::array<std::string_view, 2> kOnAuto = {"on", "auto"};
constexpr std::array<std::string_view, 2> kOffAuto = {"off", "auto"};

constexpr std::array<std::string_view, 7> kOtherAccelerators = {"tcg",  "xen", "hvf",  "whpx",
                                                                "nvmm", "hax", "qtest"};

// `kvm` or nothing: guest_memfd belongs to a KVM virtual machine.
Status CheckAccelerator(std::string_view name) {
  if (name == "kvm") return {};
  if (std::find(kOtherAccelerators.begin(), kOtherAccelerators.end(), name) !=
      kOtherAccelerators.end()) {
    return Fail(Errc::kUnsupported, "guest-memfd requires KVM accelerator",
                fmt::format("All guest RAM of Holdfast is guest_memfd: write kvm instead of {}, or "
                            "leave the accelerator out.",
                            name));
  }
  return Fail(Errc::kInvalidArgument, fmt::format("invalid accelerator {}", name),
              "Holdfast has one accelerator: kvm.");
}

Status SetDirtyRing(Options& options, const PropertyValue& value) {
  using kvm::DirtyRings;
  const std::uint64_t entries = std::get<std::uint64_t>(value);
  if (entries != 0 && (!std::has_single_bit(entries) || entries < DirtyRings::kLeast ||
                       entries > DirtyRings::kMost)) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("dirty-ring-size must be a power of two from {} to {}, not {}",
                            DirtyRings::kLeast, DirtyRings::kMost, entries),
                "Write 4096, or 0 for KVM's dirty log.");
  }
  options.dirty_ring_size = static_cast<std::uint32_t>(entries);
  return {};
}

constexpr Property<Options> kAccelProperties[] = {
    {{.name = "device", .default_text = "/dev/kvm", .description = "the KVM device to open"},
     object::SetField<&Options::kvm_device>},
    {{.name = "dirty-ring-size",
      .type = PropertyType::kUint,
      .default_text = "0",
      .description = "entries of each vCPU's dirty ring; 0: KVM's dirty log instead"},
     SetDirtyRing},
    {{.name = "kernel-irqchip",
      .type = PropertyType::kEnum,
      .default_text = "on",
      .description = "interrupt controllers in the kernel",
      .choices = kOn}},
};
constexpr std::array<std::string_view, 11> kQemuAccelProperties = {
    "eager-split-size", "honor-guest-pat", "igd-passthru",    "kvm-shadow-mem",
    "notify-vmexit",    "notify-window",   "one-insn-per-tb", "split-wx",
    "tb-size",          "thread",          "xen-pmu"};

Status SetMachineAccel(Options&, const PropertyValue& value) {
  // QEMU tries a list, "kvm:tcg", from the left; here the first must do.
  const std::string& list = std::get<std::string>(value);
  return CheckAccelerator(std::string_view(list).substr(0, list.find(':')));
}

Status SetMachineType(Options& options, const PropertyValue& value) {
  static constexpr std::array<std::string_view, 5> kQemuMachines = {"pc", "microvm", "isapc",
                                                                    "none", "x-remote"};
  const std::string& name = std::get<std::string>(value);
  if (name == "q35") {
    options.machine_type = name;
    return {};
  }
  if (std::find(kQemuMachines.begin(), kQemuMachines.end(), name) != kQemuMachines.end() ||
      name.starts_with("pc-i440fx-") || name.starts_with("pc-q35-") || name == "xenfv") {
    return Fail(Errc::kUnsupported,
                fmt::format("QEMU has the machine type '{}', Holdfast does not have it", name),
                name.starts_with("pc-q35-") ? "Write q35: Holdfast has no versioned machine types."
                                            : "Write q35, the machine type Holdfast has.");
  }
  return Fail(Errc::kInvalidArgument, fmt::format("unsupported machine type '{}'", name),
              "Use -machine help to list supported machines.");
}

template <bool machine::MachineConfig::* Member>
Status SetMachineSwitch(Options& options, const PropertyValue& value) {
  options.machine.*Member = std::get<bool>(value);
  return {};
}

// Properties with one word are QEMU's switches for parts that this machine always or never has.
constexpr Property<Options> kMachineProperties[] = {
    {{.name = "type", .default_text = "q35", .description = "the machine type"}, SetMachineType},
    {{.name = "accel", .default_text = "kvm", .description = "the accelerator"}, SetMachineAccel},
    {{.name = "memory-backend",
      .default_text = "made from -m",
      .description = "id of the memory backend that is the machine's RAM"},
     object::SetField<&Options::memory_backend>},
    {{.name = "acpi",
      .type = PropertyType::kEnum,
      .description = "ACPI tables",
      .choices = kOnAuto}},
    {{.name = "confidential-guest-support",
      .description = "id of the object that keeps memory from the host, like sw-protected-guest"},
     object::SetField<&Options::confidential>},
    {{.name = "dump-guest-core",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "guest memory in core dumps, where a backend does not say; guest_memfd never "
                     "is"},
     SetMachineSwitch<&machine::MachineConfig::dump_guest_core>},
    {{.name = "graphics",
      .type = PropertyType::kEnum,
      .description = "a graphics adapter",
      .choices = kOff}},
    {{.name = "hmat",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "an ACPI HMAT, which -numa hmat-lb and hmat-cache fill"},
     object::SetField<&Options::hmat>},
    {{.name = "hpet", .type = PropertyType::kEnum, .description = "an HPET", .choices = kOff}},
    {{.name = "kernel-irqchip",
      .type = PropertyType::kEnum,
      .description = "interrupt controllers in the kernel",
      .choices = kOn}},
    {{.name = "mem-merge",
      .type = PropertyType::kBool,
      .default_text = "on",
      .description = "merging of equal pages, where a backend does not say; guest_memfd's never "
                     "are"},
     SetMachineSwitch<&machine::MachineConfig::mem_merge>},
    {{.name = "memory.size",
      .type = PropertyType::kSize,
      .default_text = "128M",
      .description = "the size of the guest's RAM, as -m"},
     [](Options& options, const PropertyValue& value) {
       options.ram_words = "-machine memory.size=";
       return SetRamSize(options, std::get<std::uint64_t>(value));
     }},
    {{.name = "memory.max-size",
      .type = PropertyType::kSize,
      .description = "how large it may become, as -m maxmem="},
     [](Options& options, const PropertyValue& value) -> Status {
       options.ram_words = "-machine memory.max-size=";
       options.max_ram_size = std::get<std::uint64_t>(value);
       return {};
     }},
    {{.name = "memory.slots",
      .type = PropertyType::kUint,
      .description = "slots for memory to come, as -m slots="},
     [](Options& options, const PropertyValue& value) -> Status {
       options.ram_words = "-machine memory.slots=";
       options.ram_slots = std::get<std::uint64_t>(value);
       return {};
     }},
    {{.name = "nvdimm", .type = PropertyType::kEnum, .description = "NVDIMMs", .choices = kOff}},
    {{.name = "sata",
      .type = PropertyType::kEnum,
      .description = "a SATA controller",
      .choices = kOff}},
    {{.name = "smbus", .type = PropertyType::kEnum, .description = "an SMBus", .choices = kOff}},
    {{.name = "smm",
      .type = PropertyType::kEnum,
      .description = "system management mode",
      .choices = kOffAuto}},
    {{.name = "usb", .type = PropertyType::kEnum, .description = "USB", .choices = kOff}},
    {{.name = "vmport",
      .type = PropertyType::kEnum,
      .description = "the VMware I/O port",
      .choices = kOffAuto}},
};
constexpr std::array<std::string_view, 25> kQemuMachineProperties = {"aux-ram-share",
                                                                     "boot",
                                                                     "bus-lock-ratelimit",
                                                                     "confidential-guest-support",
                                                                     "cxl",
                                                                     "cxl-fmw",
                                                                     "default-bus-bypass-iommu",
                                                                     "dt-compatible",
                                                                     "dtb",
                                                                     "dumpdtb",
                                                                     "fd-bootchk",
                                                                     "firmware",
                                                                     "i8042",
                                                                     "igvm-cfg",
                                                                     "max-fw-size",
                                                                     "max-ram-below-4g",
                                                                     "memory",
                                                                     "memory-encryption",
                                                                     "pic",
                                                                     "pit",
                                                                     "sgx-epc",
                                                                     "smbios-entry-point-type",
                                                                     "spcr",
                                                                     "suppress-vmdesc",
                                                                     "x-oem-id"};

constexpr std::array<std::string_view, 36> kQemuCpuModels = {"486",
                                                             "Broadwell",
                                                             "Cascadelake-Server",
                                                             "ClearwaterForest",
                                                             "Conroe",
                                                             "Cooperlake",
                                                             "Denverton",
                                                             "DiamondRapids",
                                                             "Dhyana",
                                                             "EPYC",
                                                             "GraniteRapids",
                                                             "Haswell",
                                                             "Icelake-Server",
                                                             "IvyBridge",
                                                             "KnightsMill",
                                                             "Nehalem",
                                                             "Opteron_G1",
                                                             "Opteron_G2",
                                                             "Opteron_G3",
                                                             "Opteron_G4",
                                                             "Opteron_G5",
                                                             "Penryn",
                                                             "SandyBridge",
                                                             "SapphireRapids",
                                                             "SierraForest",
                                                             "Skylake-Client",
                                                             "Skylake-Server",
                                                             "Snowridge",
                                                             "Westmere",
                                                             "YongFeng",
                                                             "athlon",
                                                             "base",
                                                             "kvm64",
                                                             "n270",
                                                             "phenom",
                                                             "qemu64"};
constexpr std::array<std::string_view, 8> kQemuOldCpuModels = {
    "core2duo", "coreduo", "kvm32", "pentium", "pentium2", "pentium3", "qemu32", "Hygon"};

bool IsQemuCpuModel(std::string_view name) {
  const auto starts_like = [&](std::string_view model) {
    // "EPYC" stands for EPYC-Milan, EPYC-v3 and the like.
    return name == model || (name.starts_with(model) && name[model.size()] == '-');
  };
  return std::any_of(kQemuCpuModels.begin(), kQemuCpuModels.end(), starts_like) ||
         std::any_of(kQemuOldCpuModels.begin(), kQemuOldCpuModels.end(), starts_like);
}

}  // namespace

Status ParseAccel(Options& options, std::string_view argument) {
  HF_TRY(const KeyValues values, object::ParseKeyValues(argument, "accel"));
  const std::string* name = object::FindValue(values, "accel");
  if (object::WantsHelp(values)) {
    options.print = name != nullptr && *name == "kvm"
                        ? object::DescribeProperties<Options>("kvm-accel", kAccelProperties)
                        : "Accelerators supported in Holdfast binary:\nkvm\n";
    return {};
  }
  if (name == nullptr) {
    return Fail(Errc::kInvalidArgument, "Parameter 'accel' is missing", "Write -accel kvm.");
  }
  HF_TRY_STATUS(CheckAccelerator(*name));
  for (const KeyValue& entry : values) {
    if (entry.key == "accel") continue;
    HF_TRY_STATUS(
        object::SetProperty<Options>(kAccelProperties, kQemuAccelProperties, options, entry));
  }
  return {};
}

Status ParseEnableKvm(Options&, std::string_view) {
  return {};
}

Status ParseMachine(Options& options, std::string_view argument) {
  HF_TRY(const KeyValues values, object::ParseKeyValues(argument, "type"));
  if (object::WantsHelp(values)) {
    const std::string* type = object::FindValue(values, "type");
    options.print = type != nullptr && *type == "q35"
                        ? object::DescribeProperties<Options>("q35", kMachineProperties)
                        : "Supported machines are:\n"
                          "q35                  Standard PC (Q35 + ICH9, 2009) (default)\n";
    return {};
  }
  return object::SetProperties<Options>(kMachineProperties, kQemuMachineProperties, options,
                                        values);
}

Status ParseCpu(Options& options, std::string_view argument) {
  const std::size_t comma = std::min(argument.find(','), argument.size());
  const std::string_view model = argument.substr(0, comma);
  if (model == "help" || model == "?") {
    options.print =
        "Available CPUs:\n"
        "  host                  processor with all supported host features (default)\n"
        "  max                   the same under KVM\n";
    return {};
  }
  if (model != "host" && model != "max") {
    if (IsQemuCpuModel(model)) {
      return Fail(Errc::kUnsupported,
                  fmt::format("QEMU has the CPU model '{}', Holdfast does not have it yet", model),
                  "Write -cpu host or -cpu max.");
    }
    return Fail(Errc::kInvalidArgument, fmt::format("unable to find CPU model '{}'", model),
                "Use -cpu help to list the models.");
  }
  options.cpu_model = model;
  HF_TRY(const KeyValues values,
         object::ParseKeyValues(argument.substr(std::min(comma + 1, argument.size()))));
  for (const KeyValue& entry : values) {
    // The guest gets every feature KVM has, an invariant TSC too: just what migratable=off means.
    if (entry.key == "migratable" && entry.value == "off") continue;
    return Fail(Errc::kUnsupported,
                fmt::format("Holdfast does not have the CPU property '{}' yet", entry.key),
                fmt::format("Write -cpu {}: the guest gets every feature KVM offers.", model));
  }
  return {};
}

}  // namespace holdfast::apps
