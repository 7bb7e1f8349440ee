// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include <holdfast/error.h>

#include "devices/block/drive.h"
#include "object/memory_backend.h"
#include "object/property.h"

namespace holdfast::devices {
struct DeviceEnvironment;
}

namespace holdfast::devices::block {

/// What every disk of a guest can be told, with QEMU's names and defaults.
struct DiskOptions {
  std::string drive;
  std::string serial;
  std::uint64_t logical_block_size = 512;
  std::uint64_t physical_block_size = 512;
  std::uint64_t min_io_size = 0;
  std::uint64_t opt_io_size = 0;
  std::optional<std::uint64_t> discard_granularity;
  object::OnOffAuto write_cache = object::OnOffAuto::kAuto;
  bool share_rw = false;
  std::uint64_t read_error = 4;   ///< an OnError, or 4: as the drive has it
  std::uint64_t write_error = 4;  ///< likewise
  std::uint64_t boot_index = 0;   ///< accepted: there is no firmware
};

/// The properties, for the table of a device whose options derive from DiskOptions.
std::span<const object::Property<DiskOptions>> DiskProperties() noexcept;

/// Applies the values that are a disk's and returns the others.
Result<object::KeyValues> TakeDiskOptions(const object::KeyValues& values, DiskOptions& options);

/// `own` and the disk's properties: for DeviceModel::properties.
std::vector<object::PropertyInfo> WithDiskProperties(std::vector<object::PropertyInfo> own);

/// Judges what only all of them together can tell.
Status CheckDiskOptions(const DiskOptions& options);

/// Finds the drive and plugs the device in, with its words on errors and write cache.
/// @param model  for messages: "virtio-blk-pci"
/// @param may_be_empty  the device has a tray
Result<Drive*> PlugIn(const DeviceEnvironment& environment, std::string_view model,
                      const DiskOptions& options, DriveUser user, bool may_be_empty = false);

}  // namespace holdfast::devices::block
