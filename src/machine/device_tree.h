// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>

#include "base/state.h"
#include "devices/child_bus.h"
#include "devices/device_model.h"
#include "devices/device_request.h"
#include "devices/pci/pci_host.h"
#include "machine/pci_services.h"

namespace holdfast::machine {

/// The devices that a user asks for: on PCI buses, and on the buses of other devices.
///
/// Thread-safety: main thread, while no vCPU runs; lookups also while they run.
class DeviceTree {
 public:
  struct Surroundings {
    EventLoop& loop;
    const kvm::Vm& vm;
    const AddressSpace& memory;
    devices::Bus& io;
    devices::Bus& mmio;
    GuestAddress ecam;
    devices::pci::Windows windows;
    const devices::Backends& backends;
    std::function<void(std::string_view name, const nlohmann::json& data)> emit;
    /// Calls the function while no vCPU runs.
    std::function<void(const std::function<void()>&)> while_standing;
    devices::MachineServices& services;
    unsigned cpus = 1;  ///< vCPUs at start
  };
  /// An empty `pcie.0`. Everything referred to outlives the tree.
  static Result<std::unique_ptr<DeviceTree>> Create(Surroundings around);
  DeviceTree(const DeviceTree&) = delete;
  DeviceTree& operator=(const DeviceTree&) = delete;
  ~DeviceTree();

  /// Makes a device and puts it on its bus.
  /// @param hot  the guest runs already: only buses behind hotplug ports will do
  /// @return in QEMU's words what is wrong with id, bus or address; or the model's own error
  Status Add(const devices::DeviceRequest& request, bool hot);
  /// Asks the guest to let the device go, or where no guest needs to be asked takes it away.
  /// @return kNotFound "Device 'ID' not found"; kInvalidArgument where it cannot go
  Status RequestRemoval(std::string_view id);

  devices::pci::PciHost& pci() noexcept { return *pci_; }
  /// What is on other devices' buses.
  struct Child {
    std::string model;
    std::string id;
    std::string bus;           ///< its name
    object::KeyValues values;  ///< what the user said of it, for listings
    std::unique_ptr<devices::ChildDevice> device;
  };
  const std::vector<Child>& children() const noexcept { return children_; }

  /// Power-on state: functions reset, BARs and bridges placed. A device that the guest was asked to
  /// let go goes now, as in QEMU.
  void Reset();
  /// The machine has stopped, with all vCPUs standing, or is about to go on: tells all functions.
  /// It does not run at first.
  void SetRunning(bool running);

  /// Appends a section for each device: "pci-host", "pci/BUS/SLOT.FUNCTION/MODEL",
  /// "child/BUS/ID/MODEL" ("#N" for the N-th child without an id). They refer to the tree and are
  /// good until a device comes or goes. Saved and loaded after SetRunning(false); what is loaded
  /// touches no guest memory before SetRunning(true).
  void ListState(std::vector<state::Section>& sections);
  /// @return kUnsupported in a sentence about the first device whose state cannot be saved
  Status Migratable();

 private:
  DeviceTree(Surroundings around, std::unique_ptr<PciServices> services);
  Status AddFunction(const devices::DeviceRequest& request, bool hot);
  /// Takes away what is behind a bridge, and tells so.
  void Empty(devices::pci::Bridge& bridge);
  /// The guest keeps what is on the bus, though it was asked to let it go.
  void Keep(const devices::pci::PciBus& bus);
  /// An event about a device, if it has an id.
  void Tell(std::string_view event, std::string_view id);

  const Surroundings around_;
  const std::unique_ptr<PciServices> services_;
  devices::ChildBuses buses_;
  const devices::DeviceEnvironment environment_;
  std::unique_ptr<devices::pci::PciHost> pci_;
  bool running_ = false;
  std::vector<Child> children_;  // last: they are on the buses of functions
};

}  // namespace holdfast::machine
