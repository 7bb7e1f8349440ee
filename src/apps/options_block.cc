// SPDX-License-Identifier: Apache-2.0
// Disks: -drive, -blockdev and the shorthands.
#include "apps/options_block.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "apps/options_parse.h"
#include "devices/device_request.h"

namespace holdfast::apps {
namespace {

using devices::block::NodeOptions;

// A comma in a file name is written twice inside an argument.
std::string Escape(std::string_view text) {
  std::string escaped;
  for (const char c : text) escaped.append(c == ',' ? 2 : 1, c);
  return escaped;
}

Status AddShorthand(Options& options, std::string_view option, std::string_view file,
                    std::string_view words) {
  HF_TRY(DriveRequest drive, ReadDrive(fmt::format("file={},{}", Escape(file), words)));
  drive.option = fmt::format("-{} {}", option, file);
  options.drives.push_back(std::move(drive));
  return {};
}

// QEMU's names for drives without one: "virtio0", "ide2-cd0".
std::string DefaultId(const DriveRequest& drive) {
  switch (drive.interface) {
    case DriveInterface::kIde:
      return fmt::format("ide{}-{}0", *drive.index, drive.cdrom ? "cd" : "hd");
    case DriveInterface::kScsi:
      return fmt::format("scsi0-{}{}", drive.cdrom ? "cd" : "hd", *drive.index);
    case DriveInterface::kVirtio:
      return fmt::format("virtio{}", *drive.index);
    case DriveInterface::kNone:
      break;
  }
  return fmt::format("none{}", *drive.index);
}

// The first place of its interface that is free, or an error if the one it wants is taken.
Status TakePlace(Options& options, DriveRequest& drive) {
  const auto taken = [&](std::uint64_t index) {
    return std::ranges::any_of(options.drives, [&](const DriveRequest& other) {
      return &other != &drive && other.interface == drive.interface && other.index == index;
    });
  };
  if (drive.index) {
    if (!taken(*drive.index)) return {};
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("drive with bus={}, unit=0 (index={}) exists", *drive.index, *drive.index),
        "Give it another index, or none.");
  }
  std::uint64_t index = 0;
  while (taken(index)) ++index;
  drive.index = index;
  return {};
}

Status AddDevice(Options& options, std::string_view model_name, object::KeyValues values) {
  const devices::DeviceModel* const model = devices::FindDeviceModel(model_name);
  HF_TRY(devices::DeviceRequest request, devices::ParseDeviceRequest(*model, values));
  options.machine.devices.push_back(std::move(request));
  return {};
}

// There is no IDE controller. Its disks, and those of if=scsi, are on a SCSI adapter of their own:
// a Linux guest calls them sda and sr0, as it does QEMU's.
Status AddDeviceOf(Options& options, const DriveRequest& drive, bool& has_adapter) {
  // An image that another program reads is a virtio disk, wherever it was to be.
  if (drive.interface == DriveInterface::kVirtio || drive.served()) {
    return AddDevice(options, "virtio-blk-pci", {{.key = "drive", .value = drive.id}});
  }
  constexpr std::string_view kAdapter = "scsi.0";  // the name of an adapter without id
  if (!std::exchange(has_adapter, true)) HF_TRY_STATUS(AddDevice(options, "virtio-scsi-pci", {}));
  const std::uint64_t target = *drive.index + (drive.interface == DriveInterface::kIde ? 0 : 128);
  return AddDevice(options, drive.cdrom ? "scsi-cd" : "scsi-hd",
                   {{.key = "drive", .value = drive.id},
                    {.key = "bus", .value = std::string(kAdapter)},
                    {.key = "scsi-id", .value = std::to_string(target)}});
}

}  // namespace

Status ParseDrive(Options& options, std::string_view argument) {
  HF_TRY(DriveRequest drive, ReadDrive(argument));
  drive.option = fmt::format("-drive {}", argument);
  options.drives.push_back(std::move(drive));
  return {};
}

Status ParseBlockdev(Options& options, std::string_view argument) {
  object::KeyValues values;
  if (argument.starts_with('{')) {
    HF_TRY(const nlohmann::json json, object::ParseJsonObject(argument));
    HF_TRY(values, devices::block::FlattenJson(json));
  } else {
    HF_TRY(values, object::ParseKeyValues(argument, "driver"));
  }
  HF_TRY(NodeOptions node, devices::block::ParseNodeOptions(values));
  if (node.node_name.empty()) {
    return Fail(Errc::kInvalidArgument, "'node-name' must be specified for the root node",
                "Add node-name=NAME: devices use the node by it.");
  }
  options.blockdevs.push_back({fmt::format("-blockdev {}", argument), std::move(node)});
  return {};
}

Status ParseHardDisk(Options& options, unsigned index, std::string_view argument) {
  return AddShorthand(options, fmt::format("hd{}", static_cast<char>('a' + index)), argument,
                      fmt::format("index={},media=disk", index));
}

Status ParseCdrom(Options& options, std::string_view argument) {
  return AddShorthand(options, "cdrom", argument, "index=2,media=cdrom");
}

Status FinishBlock(Options& options) {
  for (DriveRequest& drive : options.drives) {
    // What is only read has nothing to forget.
    const bool written = drive.node && !drive.node->read_only.value_or(false);
    if (!drive.snapshot) drive.snapshot = options.snapshot && written;
    if (Status good = CheckServed(drive); !good) {
      return Fail(std::move(good).error().Wrap(drive.option));
    }
    if (Status placed = TakePlace(options, drive); !placed) {
      return Fail(std::move(placed).error().Wrap(drive.option));
    }
    if (drive.id.empty()) drive.id = DefaultId(drive);
  }
  // As in QEMU the devices of drives come behind those of -device.
  bool has_adapter = false;
  for (const DriveRequest& drive : options.drives) {
    if (drive.interface == DriveInterface::kNone) continue;
    if (Status added = AddDeviceOf(options, drive, has_adapter); !added) {
      return Fail(std::move(added).error().Wrap(drive.option));
    }
  }
  return {};
}

}  // namespace holdfast::apps
