// SPDX-License-Identifier: Apache-2.0
// -fw_cfg and -smbios: what firmware would tell a guest.
#include <fmt/format.h>

#include <array>
#include <charconv>

#include "apps/options_parse.h"
#include "devices/fw_cfg.h"
#include "object/keyval.h"
#include "object/property.h"

namespace holdfast::apps {
namespace {

using machine::FwCfgFile;
using machine::SmbiosConfig;
using object::KeyValue;
using object::KeyValues;
using object::Property;
using object::PropertyType;
using object::PropertyValue;

// ---- -fw_cfg ------------------------------------------------------------------------------------

constexpr Property<FwCfgFile> kFwCfgProperties[] = {
    {{.name = "name", .description = "what the guest calls it; opt/… is for users"},
     object::SetField<&FwCfgFile::name>},
    {{.name = "file", .description = "the file that holds the contents"},
     object::SetField<&FwCfgFile::path>},
    {{.name = "string", .description = "the contents themselves, without a final zero"},
     object::SetField<&FwCfgFile::text>},
};
constexpr std::array<std::string_view, 1> kQemuFwCfg = {"gen_id"};

// ---- -smbios ------------------------------------------------------------------------------------

template <auto Member>
constexpr auto Text(std::string_view name, std::string_view description) {
  using Owner = decltype(object::internal::OwnerOf(Member));
  return Property<Owner>{{.name = name, .description = description}, object::SetField<Member>};
}
template <auto Member>
constexpr auto Word(std::string_view name, std::string_view default_text,
                    std::string_view description) {
  using Owner = decltype(object::internal::OwnerOf(Member));
  return Property<Owner>{{.name = name,
                          .type = PropertyType::kUint,
                          .default_text = default_text,
                          .description = description,
                          .max = 0xffff},
                         object::SetField<Member>};
}

using Bios = SmbiosConfig::Bios;
Status SetRelease(Bios& bios, const PropertyValue& value) {
  const std::string& text = std::get<std::string>(value);
  const char* const end = text.data() + text.size();
  const auto major = std::from_chars(text.data(), end, bios.major);
  if (major.ec == std::errc{} && major.ptr != end && *major.ptr == '.') {
    const auto minor = std::from_chars(major.ptr + 1, end, bios.minor);
    if (minor.ec == std::errc{} && minor.ptr == end) return {};
  }
  return Fail(Errc::kInvalidArgument, "Invalid release",
              "Write two numbers up to 255, for example release=1.2.");
}
constexpr Property<Bios> kBios[] = {
    Text<&Bios::vendor>("vendor", "vendor name"),
    Text<&Bios::version>("version", "version number"),
    Text<&Bios::date>("date", "release date, mm/dd/yyyy"),
    {{.name = "release", .description = "revision number, major.minor"}, SetRelease},
    {{.name = "uefi",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "say that the firmware is UEFI"},
     object::SetField<&Bios::uefi>},
};

using System = SmbiosConfig::System;
Status SetSystemUuid(System& system, const PropertyValue& value) {
  HF_TRY(system.uuid, ReadUuid(std::get<std::string>(value)));
  return {};
}
constexpr Property<System> kSystem[] = {
    Text<&System::manufacturer>("manufacturer", "manufacturer name"),
    Text<&System::product>("product", "product name"),
    Text<&System::version>("version", "version number"),
    Text<&System::serial>("serial", "serial number; cloud-init reads ds=nocloud… from it"),
    {{.name = "uuid", .description = "UUID; the same as -uuid"}, SetSystemUuid},
    Text<&System::sku>("sku", "SKU number"),
    Text<&System::family>("family", "family name"),
};

using Board = SmbiosConfig::Board;
constexpr Property<Board> kBoard[] = {
    Text<&Board::manufacturer>("manufacturer", "manufacturer name"),
    Text<&Board::product>("product", "product name"),
    Text<&Board::version>("version", "version number"),
    Text<&Board::serial>("serial", "serial number"),
    Text<&Board::asset>("asset", "asset tag number"),
    Text<&Board::location>("location", "location in chassis"),
};

using Chassis = SmbiosConfig::Chassis;
constexpr Property<Chassis> kChassis[] = {
    Text<&Chassis::manufacturer>("manufacturer", "manufacturer name"),
    Text<&Chassis::version>("version", "version number"),
    Text<&Chassis::serial>("serial", "serial number"),
    Text<&Chassis::asset>("asset", "asset tag number"),
    Text<&Chassis::sku>("sku", "SKU number"),
};

using Processor = SmbiosConfig::Processor;
Status SetProcessorId(Processor& processor, const PropertyValue& value) {
  processor.id = std::get<std::uint64_t>(value);
  return {};
}
constexpr Property<Processor> kProcessor[] = {
    Text<&Processor::socket_prefix>("sock_pfx", "socket designation prefix"),
    Text<&Processor::manufacturer>("manufacturer", "manufacturer name"),
    Text<&Processor::version>("version", "version number"),
    Text<&Processor::serial>("serial", "serial number"),
    Text<&Processor::asset>("asset", "asset tag number"),
    Text<&Processor::part>("part", "part number"),
    Word<&Processor::max_speed>("max-speed", "2000", "max speed in MHz"),
    Word<&Processor::current_speed>("current-speed", "2000", "speed at system boot in MHz"),
    Word<&Processor::family>("processor-family", "1", "processor family"),
    {{.name = "processor-id", .type = PropertyType::kUint, .description = "processor id"},
     SetProcessorId},
};

using MemoryDevice = SmbiosConfig::MemoryDevice;
constexpr Property<MemoryDevice> kMemoryDevice[] = {
    Text<&MemoryDevice::locator_prefix>("loc_pfx", "device locator string prefix"),
    Text<&MemoryDevice::bank>("bank", "bank locator string"),
    Text<&MemoryDevice::manufacturer>("manufacturer", "manufacturer name"),
    Text<&MemoryDevice::serial>("serial", "serial number"),
    Text<&MemoryDevice::asset>("asset", "asset tag number"),
    Text<&MemoryDevice::part>("part", "part number"),
    Word<&MemoryDevice::speed>("speed", "0", "maximum capable speed in MHz"),
};

Status AddOemValue(SmbiosConfig& config, const PropertyValue& value) {
  config.oem_strings.push_back({.value = std::get<std::string>(value), .path = {}});
  return {};
}
Status AddOemPath(SmbiosConfig& config, const PropertyValue& value) {
  config.oem_strings.push_back({.value = {}, .path = std::get<std::string>(value)});
  return {};
}
constexpr Property<SmbiosConfig> kOemStrings[] = {
    {{.name = "value", .description = "OEM string data; may come several times"}, AddOemValue},
    {{.name = "path", .description = "a file that holds one"}, AddOemPath},
};
Status AddFile(SmbiosConfig& config, const PropertyValue& value) {
  config.files.push_back(std::get<std::string>(value));
  return {};
}
constexpr Property<SmbiosConfig> kFile[] = {
    {{.name = "file", .description = "a binary file with one structure"}, AddFile},
};

template <typename Owner>
Status SetFields(std::span<const Property<Owner>> table, Owner& owner, const KeyValues& values) {
  for (const KeyValue& entry : values) {
    if (entry.key == "type") continue;
    HF_TRY_STATUS(object::SetProperty<Owner>(table, {}, owner, entry));
  }
  return {};
}

std::string SmbiosHelp() {
  return object::DescribeProperties<SmbiosConfig>("smbios", kFile) +
         object::DescribeProperties<Bios>("smbios type=0", kBios) +
         object::DescribeProperties<System>("smbios type=1", kSystem) +
         object::DescribeProperties<Board>("smbios type=2", kBoard) +
         object::DescribeProperties<Chassis>("smbios type=3", kChassis) +
         object::DescribeProperties<Processor>("smbios type=4", kProcessor) +
         object::DescribeProperties<SmbiosConfig>("smbios type=11", kOemStrings) +
         object::DescribeProperties<MemoryDevice>("smbios type=17", kMemoryDevice);
}

Status SetType(SmbiosConfig& config, std::uint64_t type, const KeyValues& values) {
  constexpr std::string_view kThereAre = "Holdfast has the types 0, 1, 2, 3, 4, 11 and 17.";
  switch (type) {
    case 0:
      return SetFields<Bios>(kBios, config.bios, values);
    case 1:
      return SetFields<System>(kSystem, config.system, values);
    case 2:
      if (!config.board) config.board = SmbiosConfig::Board{};
      return SetFields<Board>(kBoard, *config.board, values);
    case 3:
      return SetFields<Chassis>(kChassis, config.chassis, values);
    case 4:
      return SetFields<Processor>(kProcessor, config.processor, values);
    case 11:
      return SetFields<SmbiosConfig>(kOemStrings, config, values);
    case 17:
      return SetFields<MemoryDevice>(kMemoryDevice, config.memory_device, values);
    case 8:
    case 9:
    case 41:
      return Fail(Errc::kUnsupported,
                  fmt::format("QEMU builds SMBIOS type {}, Holdfast does not", type),
                  std::string(kThereAre));
    default:
      return Fail(Errc::kInvalidArgument,
                  fmt::format("Don't know how to build fields for SMBIOS type {}", type),
                  std::string(kThereAre));
  }
}

}  // namespace

Status ParseFwCfg(Options& options, std::string_view argument) {
  HF_TRY(const KeyValues values, object::ParseKeyValues(argument, "name"));
  if (object::WantsHelp(values)) {
    options.print = object::DescribeProperties<FwCfgFile>("fw_cfg", kFwCfgProperties);
    return {};
  }
  FwCfgFile file;
  HF_TRY_STATUS(object::SetProperties<FwCfgFile>(kFwCfgProperties, kQemuFwCfg, file, values));
  if (file.name.empty() || file.path.empty() == file.text.empty()) {
    return Fail(Errc::kInvalidArgument, "name, plus exactly one of file and string, are needed",
                "For example: -fw_cfg opt/org.example/greeting,string=hello.");
  }
  constexpr std::size_t kLongest = devices::FwCfg::kLongestName;
  if (file.name.size() > kLongest) {
    return Fail(Errc::kInvalidArgument, fmt::format("name too long (max. {} char)", kLongest),
                "Give it a shorter one.");
  }
  if (!file.name.starts_with("opt/")) {
    options.warnings.push_back(fmt::format(
        "-fw_cfg {}: externally provided fw_cfg item names should be prefixed with \"opt/\"",
        argument));
  }
  options.machine.fw_cfg.push_back(std::move(file));
  return {};
}

Status ParseSmbios(Options& options, std::string_view argument) {
  HF_TRY(const KeyValues values, object::ParseKeyValues(argument));
  if (object::WantsHelp(values)) {
    options.print = SmbiosHelp();
    return {};
  }
  SmbiosConfig& config = options.machine.smbios;
  const std::string* const type = object::FindValue(values, "type");
  if (type == nullptr) {
    if (object::FindValue(values, "file") == nullptr) {
      return Fail(Errc::kInvalidArgument,
                  "Must specify type= or file=", "-smbios help lists the fields.");
    }
    return object::SetProperties<SmbiosConfig>(kFile, {}, config, values);
  }
  constexpr object::PropertyInfo kType{.name = "type", .type = PropertyType::kUint, .max = 0xff};
  HF_TRY(const PropertyValue number, object::ParseProperty(kType, *type));
  HF_TRY_STATUS(SetType(config, std::get<std::uint64_t>(number), values));
  // As in QEMU: the one is the other.
  if (object::FindValue(values, "uuid") != nullptr) options.uuid = config.system.uuid;
  return {};
}

}  // namespace holdfast::apps
