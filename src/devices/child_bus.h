// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>

#include "base/state.h"

namespace holdfast::devices {

/// A bus that a device makes for other devices: disks of a SCSI adapter, ports of virtio-serial.
/// Whoever attaches to it knows its class by type().
class ChildBus {
 public:
  ChildBus() = default;
  ChildBus(const ChildBus&) = delete;
  ChildBus& operator=(const ChildBus&) = delete;
  virtual ~ChildBus() = default;
  /// As in `-device help`: "SCSI", "virtio-serial-bus".
  virtual std::string_view type() const noexcept = 0;
};

/// A device on a child bus; destroying it takes it off the bus.
class ChildDevice {
 public:
  ChildDevice() = default;
  ChildDevice(const ChildDevice&) = delete;
  ChildDevice& operator=(const ChildDevice&) = delete;
  virtual ~ChildDevice() = default;

  /// Saves or loads what it remembers; the device whose bus it is on has been loaded before. Main
  /// thread, after SetRunning(false) of that device. Default: nothing.
  virtual void VisitState(state::Fields& fields);
  /// Version of what VisitState() saves.
  virtual std::uint32_t state_version() const noexcept { return 1; }
  /// @return kUnsupported, in a sentence, if there is state that nobody here knows
  virtual Status Migratable() const;
};

/// The child buses there are, by name ("scsi0.0": the device's id, a dot, a number).
///
/// Thread-safety: main thread.
class ChildBuses {
 public:
  /// @param bus  outlives its entry: its owner calls Remove() first
  void Add(std::string name, ChildBus& bus) { buses_[std::move(name)] = &bus; }
  void Remove(const ChildBus& bus) {
    std::erase_if(buses_, [&](const auto& entry) { return entry.second == &bus; });
  }
  /// The bus of that name; for an empty name the first of that type.
  /// @return kNotFound as QEMU words it; kInvalidArgument for a bus of another type
  Result<ChildBus*> Find(std::string_view name, std::string_view type,
                         std::string_view model) const;

  /// All names, in order.
  std::vector<std::string> Names() const;
  /// Empty for a bus that is not there.
  std::string NameOf(const ChildBus& bus) const;

 private:
  std::map<std::string, ChildBus*, std::less<>> buses_;
};

}  // namespace holdfast::devices
