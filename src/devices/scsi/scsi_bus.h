// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <holdfast/error.h>

#include "devices/child_bus.h"
#include "devices/device_thread.h"
#include "devices/scsi/scsi_disk.h"

namespace holdfast::devices::scsi {

inline constexpr std::string_view kScsiBusType = "SCSI";

/// Where a logical unit is.
struct UnitAddress {
  std::uint8_t target = 0;
  std::uint16_t lun = 0;
  auto operator<=>(const UnitAddress&) const = default;
};

/// The disks of an adapter. Disks keep it alive, should the adapter go before them.
///
/// Thread-safety: the adapter's thread. The main thread alone adds and removes disks, by thread(),
/// and may look at them meanwhile.
class ScsiBus final : public ChildBus, public std::enable_shared_from_this<ScsiBus> {
 public:
  explicit ScsiBus(DeviceThread thread) noexcept : thread_(thread) {}
  /// What the adapter and its disks work on.
  const DeviceThread& thread() const noexcept { return thread_; }

  static constexpr std::uint8_t kMostTarget = 255;
  static constexpr std::uint16_t kMostLun = 16383;

  std::string_view type() const noexcept override { return kScsiBusType; }

  /// Called when a disk has come or is going, with what it is; for the adapter.
  using Changed = std::function<void(UnitAddress where, bool added)>;
  void set_changed(Changed changed) { changed_ = std::move(changed); }
  /// Called when a disk has answered a round of commands.
  void set_batch_end(std::function<void()> end) { batch_end_ = std::move(end); }
  void BatchEnded() const {
    if (batch_end_) batch_end_();
  }

  /// The first free target. @return nothing if all are taken
  std::optional<std::uint8_t> FreeTarget() const noexcept;
  /// @return kInvalidArgument as QEMU words it if the place is taken
  Status Add(UnitAddress where, ScsiDisk& disk);
  void Remove(const ScsiDisk& disk);

  ScsiDisk* Find(UnitAddress where) const noexcept;
  bool HasTarget(std::uint8_t target) const noexcept;
  std::vector<std::uint16_t> Luns(std::uint8_t target) const;
  const std::map<UnitAddress, ScsiDisk*>& units() const noexcept { return units_; }

 private:
  const DeviceThread thread_;
  std::map<UnitAddress, ScsiDisk*> units_;
  Changed changed_;
  std::function<void()> batch_end_;
};

}  // namespace holdfast::devices::scsi
