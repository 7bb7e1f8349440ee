// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include <holdfast/error.h>

#include <nlohmann/json_fwd.hpp>

#include "object/keyval.h"
#include "object/property.h"

namespace holdfast {
class AddressSpace;
class EventLoop;
}  // namespace holdfast
namespace holdfast::object {
class ObjectStore;
}

namespace holdfast::devices {

class Chardev;
struct MachineServices;
class ChildBuses;
class ChildDevice;
namespace pci {
class Function;
class PciServices;
}  // namespace pci
namespace block {
class Drive;
class StorageDaemon;
}  // namespace block
namespace net {
class NetBackend;
class Network;
}  // namespace net

/// The host's ends that devices are made with, by id. Each function gives null for an id nobody
/// made; what it gives outlives the device.
struct Backends {
  std::function<block::Drive*(std::string_view id)> drive;
  /// Drives with images that another program reads.
  std::function<block::StorageDaemon*(std::string_view id)> image;
  std::function<net::NetBackend*(std::string_view id)> netdev;
  std::function<Chardev*(std::string_view id)> chardev;
  std::function<EventLoop*(std::string_view id)> iothread;
  net::Network* network = nullptr;  ///< where network cards are entered
  const object::ObjectStore* objects = nullptr;
};

/// What a device is made in. Outlives the device.
struct DeviceEnvironment {
  EventLoop& loop;  ///< the main thread's
  const AddressSpace& memory;
  pci::PciServices& pci;
  const Backends& backends;
  /// Sends an event of the control protocol. Main thread.
  std::function<void(std::string_view name, const nlohmann::json& data)> emit;
  /// The machine as balloon and watchdog know it; null only in tests without them.
  MachineServices* services = nullptr;
  /// The machine's vCPUs: how many queues a device has by default.
  unsigned cpus = 1;
  /// Buses that devices make for other devices; null in some unit tests.
  ChildBuses* buses = nullptr;
};

/// Where a model's devices go: onto a PCI bus, or onto a bus of another device (ChildBus::type()).
inline constexpr std::string_view kPciBusType = "PCI";

/// One type of `-device`. `values` never hold driver, id and bus, and for PCI neither addr nor
/// multifunction: those are the bus's.
struct DeviceModel {
  std::string_view name;
  std::string_view description;
  /// For help texts and introspection.
  std::vector<object::PropertyInfo> (*properties)();
  /// Judges the words alone, when the command line is read: nothing outside is touched.
  Status (*check)(const object::KeyValues& values);
  /// Makes the device. Main thread, vCPUs standing or (hotplug) running. `id` is the user's name
  /// for it, perhaps empty.
  Result<std::unique_ptr<pci::Function>> (*create)(const DeviceEnvironment& environment,
                                                   std::string_view id,
                                                   const object::KeyValues& values) = nullptr;
  std::string_view bus_type = kPciBusType;
  /// For other buses instead of create(). `bus` is what `bus=` says, perhaps nothing
  /// (environment.buses finds it).
  Result<std::unique_ptr<ChildDevice>> (*attach)(const DeviceEnvironment& environment,
                                                 std::string_view id, std::string_view bus,
                                                 const object::KeyValues& values) = nullptr;
};

/// All device models there are, by name.
std::span<const DeviceModel* const> DeviceModels() noexcept;
const DeviceModel* FindDeviceModel(std::string_view name) noexcept;

}  // namespace holdfast::devices
