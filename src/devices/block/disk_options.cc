// SPDX-License-Identifier: Apache-2.0
#include "devices/block/disk_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>

#include "devices/device_model.h"

namespace holdfast::devices::block {
namespace {

using object::Property;
using object::PropertyType;
using object::PropertyValue;

constexpr std::array<std::string_view, 3> kOnOffAutoWords = {"auto", "on", "off"};
constexpr std::array<std::string_view, 5> kOnErrorWords = {"report", "ignore", "stop", "enospc",
                                                           "auto"};
constexpr std::uint64_t kOnErrorAuto = 4;
constexpr std::uint64_t kMostBlockSize = 2ULL << 20;

constexpr Property<DiskOptions> kProperties[] = {
    {{.name = "drive", .description = "id of a -drive, or node name of a -blockdev"},
     object::SetField<&DiskOptions::drive>},
    {{.name = "serial", .description = "serial number"}, object::SetField<&DiskOptions::serial>},
    {{.name = "logical_block_size",
      .type = PropertyType::kSize,
      .default_text = "512",
      .description = "the unit of the guest's requests"},
     object::SetField<&DiskOptions::logical_block_size>},
    {{.name = "physical_block_size",
      .type = PropertyType::kSize,
      .default_text = "512",
      .description = "the unit that is fast to write"},
     object::SetField<&DiskOptions::physical_block_size>},
    {{.name = "min_io_size",
      .type = PropertyType::kSize,
      .default_text = "0",
      .description = "smallest good request, bytes"},
     object::SetField<&DiskOptions::min_io_size>},
    {{.name = "opt_io_size",
      .type = PropertyType::kSize,
      .default_text = "0",
      .description = "best request, bytes"},
     object::SetField<&DiskOptions::opt_io_size>},
    {{.name = "discard_granularity",
      .type = PropertyType::kSize,
      .default_text = "the logical block size",
      .description = "unit of discards, bytes"},
     [](DiskOptions& options, const PropertyValue& value) -> Status {
       options.discard_granularity = std::get<std::uint64_t>(value);
       return {};
     }},
    {{.name = "write-cache",
      .type = PropertyType::kEnum,
      .default_text = "auto",
      .description = "whether the guest must flush",
      .choices = kOnOffAutoWords},
     object::SetField<&DiskOptions::write_cache>},
    {{.name = "share-rw",
      .type = PropertyType::kBool,
      .default_text = "off",
      .description = "others may write the image meanwhile"},
     object::SetField<&DiskOptions::share_rw>},
    {{.name = "rerror",
      .type = PropertyType::kEnum,
      .default_text = "auto",
      .description = "what becomes of reads the host cannot do",
      .choices = kOnErrorWords},
     object::SetField<&DiskOptions::read_error>},
    {{.name = "werror",
      .type = PropertyType::kEnum,
      .default_text = "auto",
      .description = "what becomes of writes the host cannot do",
      .choices = kOnErrorWords},
     object::SetField<&DiskOptions::write_error>},
    {{.name = "bootindex",
      .type = PropertyType::kUint,
      .description = "accepted: there is no firmware to boot from a disk",
      .max = INT32_MAX},
     object::SetField<&DiskOptions::boot_index>},
};

Status CheckBlockSize(std::string_view name, std::uint64_t size) {
  if (size >= 512 && size <= kMostBlockSize && std::has_single_bit(size)) return {};
  return Fail(Errc::kInvalidArgument,
              fmt::format("parameter {} must be a power of 2 between 512 and 2097152", name),
              fmt::format("It is {}.", size));
}

}  // namespace

std::span<const Property<DiskOptions>> DiskProperties() noexcept {
  return kProperties;
}

Result<object::KeyValues> TakeDiskOptions(const object::KeyValues& values, DiskOptions& options) {
  object::KeyValues rest;
  for (const object::KeyValue& entry : values) {
    const auto is_it = [&](const auto& property) { return property.name == entry.key; };
    if (std::ranges::any_of(kProperties, is_it)) {
      HF_TRY_STATUS(object::SetProperty<DiskOptions>(kProperties, {}, options, entry));
    } else {
      rest.push_back(entry);
    }
  }
  return rest;
}

std::vector<object::PropertyInfo> WithDiskProperties(std::vector<object::PropertyInfo> own) {
  own.insert(own.end(), std::begin(kProperties), std::end(kProperties));
  return own;
}

Status CheckDiskOptions(const DiskOptions& options) {
  HF_TRY_STATUS(CheckBlockSize("logical_block_size", options.logical_block_size));
  HF_TRY_STATUS(CheckBlockSize("physical_block_size", options.physical_block_size));
  const std::uint64_t unit = options.logical_block_size;
  if (unit > options.physical_block_size) {
    return Fail(Errc::kInvalidArgument, "logical_block_size > physical_block_size not supported",
                fmt::format("Add physical_block_size={}.", unit));
  }
  if (options.min_io_size % unit != 0 || options.min_io_size / unit > UINT16_MAX) {
    return Fail(Errc::kInvalidArgument,
                "min_io_size must be a multiple of logical_block_size and at most 65535 of them");
  }
  if (options.opt_io_size % unit != 0 || options.opt_io_size / unit > UINT32_MAX) {
    return Fail(Errc::kInvalidArgument, "opt_io_size must be a multiple of logical_block_size");
  }
  if (options.discard_granularity.value_or(0) % unit != 0 ||
      options.discard_granularity.value_or(0) > UINT32_MAX) {
    return Fail(Errc::kInvalidArgument,
                "discard_granularity must be a multiple of logical_block_size");
  }
  if (options.read_error == static_cast<std::uint64_t>(OnError::kEnospc)) {
    return Fail(Errc::kInvalidArgument, "rerror=enospc is not supported",
                "Holdfast accepts here: report, ignore, stop, auto.");
  }
  return {};
}

Result<Drive*> PlugIn(const DeviceEnvironment& environment, std::string_view model,
                      const DiskOptions& options, DriveUser user, bool may_be_empty) {
  if (options.drive.empty()) {
    return Fail(Errc::kInvalidArgument, "drive property not set",
                "Add drive=ID; -drive if=none,id=ID,file=FILE makes one.");
  }
  const auto& find = environment.backends.drive;
  Drive* const drive = find ? find(options.drive) : nullptr;
  if (const auto& image = environment.backends.image; image && image(options.drive) != nullptr) {
    return Fail(
        Errc::kUnsupported,
        fmt::format("{} cannot use '{}', which qemu-storage-daemon serves", model, options.drive),
        "Use a virtio-blk-pci, or convert the image with qemu-img convert -O raw.");
  }
  if (drive == nullptr) {
    return Fail(Errc::kNotFound,
                fmt::format("Property '{}.drive' can't find value '{}'", model, options.drive),
                fmt::format("Make it with -drive if=none,id={}.", options.drive));
  }
  if (drive->medium() == nullptr && !may_be_empty) {
    return Fail(Errc::kInvalidArgument, "Device needs media, but drive is empty",
                fmt::format("Give the drive '{}' a file.", options.drive));
  }
  HF_TRY_STATUS(drive->Attach(
      std::move(user), static_cast<std::uint32_t>(options.logical_block_size), options.share_rw));
  if (options.read_error != kOnErrorAuto) {
    drive->on_read_error = static_cast<OnError>(options.read_error);
  }
  if (options.write_error != kOnErrorAuto) {
    drive->on_write_error = static_cast<OnError>(options.write_error);
  }
  if (options.write_cache != object::OnOffAuto::kAuto) {
    drive->set_write_cache(options.write_cache == object::OnOffAuto::kOn);
  }
  return drive;
}

}  // namespace holdfast::devices::block
