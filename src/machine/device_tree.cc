// SPDX-License-Identifier: Apache-2.0
#include "machine/device_tree.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "devices/pci/bridge.h"

namespace holdfast::machine {

namespace pci = devices::pci;

namespace {

constexpr std::string_view kDeleted = "DEVICE_DELETED";
// A guest that has done nothing by then has perhaps not even heard: as QEMU.
constexpr std::chrono::seconds kTimeToLetGo{5};

}  // namespace

DeviceTree::DeviceTree(Surroundings around, std::unique_ptr<PciServices> services)
    : around_(std::move(around)),
      services_(std::move(services)),
      environment_{.loop = around_.loop,
                   .memory = around_.memory,
                   .pci = *services_,
                   .backends = around_.backends,
                   .emit = around_.emit,
                   .services = &around_.services,
                   .cpus = around_.cpus,
                   .buses = &buses_} {}

DeviceTree::~DeviceTree() {
  // Back to front: one may use what stands before it.
  while (!children_.empty()) children_.pop_back();
}

Result<std::unique_ptr<DeviceTree>> DeviceTree::Create(Surroundings around) {
  HF_TRY(std::unique_ptr<PciServices> services, PciServices::Create(around.vm));
  std::unique_ptr<DeviceTree> tree(new DeviceTree(std::move(around), std::move(services)));
  const Surroundings& in = tree->around_;
  HF_TRY(tree->pci_, pci::PciHost::Create(*tree->services_, in.io, in.mmio, in.ecam, in.windows));
  return tree;
}

Status DeviceTree::Add(const devices::DeviceRequest& request, bool hot) {
  const bool taken = !request.id.empty() &&
                     (pci_->FindById(request.id).occupant != nullptr ||
                      std::ranges::find(children_, request.id, &Child::id) != children_.end());
  if (taken)
    return Fail(Errc::kInvalidArgument, fmt::format("Duplicate device ID '{}'", request.id));
  if (request.model->attach == nullptr) return AddFunction(request, hot);
  HF_TRY(std::unique_ptr<devices::ChildDevice> device,
         request.model->attach(environment_, request.id, request.bus, request.values));
  std::string bus;
  if (auto found = buses_.Find(request.bus, request.model->bus_type, request.model->name)) {
    bus = buses_.NameOf(**found);
  }
  children_.push_back({.model = std::string(request.model->name),
                       .id = request.id,
                       .bus = std::move(bus),
                       .values = request.values,
                       .device = std::move(device)});
  return {};
}

Status DeviceTree::AddFunction(const devices::DeviceRequest& request, bool hot) {
  pci::PciBus* bus = request.bus.empty() ? &pci_->root() : pci_->FindBus(request.bus);
  if (bus == nullptr) {
    return Fail(Errc::kNotFound, fmt::format("Bus '{}' not found", request.bus),
                "pcie.0 is the root bus; a pcie-root-port's id names the bus behind it.");
  }
  if (hot && (bus->parent() == nullptr || !bus->parent()->hotplug())) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Bus '{}' does not support hotplugging", bus->name()),
                "Give the machine a -device pcie-root-port,id=ID and name it with bus=ID.");
  }
  pci::Placement placement{.id = request.id,
                           .model = std::string(request.model->name),
                           .address = request.address,
                           .multifunction = request.multifunction,
                           .values = request.values};
  // Judged before the device is made, which may open or take things.
  HF_TRY(placement.address, bus->Choose(placement));
  const std::vector<std::string> before = buses_.Names();
  HF_TRY(std::unique_ptr<pci::Function> function,
         request.model->create(environment_, request.id, request.values));
  std::ranges::set_difference(buses_.Names(), before, std::back_inserter(placement.buses));
  HF_TRY(const pci::PciBus::Occupant* occupant,
         pci_->Add(*bus, std::move(placement), std::move(function)));
  if (!running_) occupant->function->SetRunning(false);
  if (pci::Bridge* bridge = occupant->bridge; bridge != nullptr) {
    bridge->set_released([this, name = bridge->secondary().name()] {
      const pci::PciBus* behind = pci_->FindBus(name);
      if (behind != nullptr) around_.while_standing([&] { Empty(*behind->parent()); });
    });
    bridge->set_refused([this, name = bridge->secondary().name()] {
      if (const pci::PciBus* const behind = pci_->FindBus(name)) Keep(*behind);
    });
  }
  if (hot) {
    bus->parent()->OccupantCame();
  } else if (bus->parent() != nullptr) {
    bus->parent()->Reset();  // an occupied slot has power, and the link is up
  }
  return {};
}

void DeviceTree::Empty(pci::Bridge& bridge) {
  pci::PciBus& bus = bridge.secondary();
  std::vector<pci::Placement> gone;
  bus.ForEach([&](const pci::PciBus::Occupant& occupant) { gone.push_back(occupant.placement); });
  if (gone.empty()) return;
  // Function 0 last: it is what says that there are others.
  for (auto one = gone.rbegin(); one != gone.rend(); ++one) pci_->Remove(bus, *one->address);
  bridge.OccupantWent();
  for (const pci::Placement& placement : gone) Tell(kDeleted, placement.id);
}

void DeviceTree::Keep(const pci::PciBus& bus) {
  bus.ForEach([this](pci::PciBus::Occupant& occupant) {
    if (!std::exchange(occupant.leaving, false)) return;
    Tell("DEVICE_UNPLUG_GUEST_ERROR", occupant.placement.id);
  });
}

void DeviceTree::Tell(std::string_view event, std::string_view id) {
  if (!around_.emit || id.empty()) return;
  around_.emit(event, {{"device", id}, {"path", fmt::format("/machine/peripheral/{}", id)}});
}

void DeviceTree::Reset() {
  std::vector<pci::Bridge*> leaving;
  pci_->ForEach([&](const pci::PciBus& bus, const pci::PciBus::Occupant& occupant) {
    if (occupant.leaving) leaving.push_back(bus.parent());
  });
  for (pci::Bridge* bridge : leaving) Empty(*bridge);
  pci_->Reset();
}

void DeviceTree::SetRunning(bool running) {
  running_ = running;
  pci_->ForEach([running](pci::PciBus&, pci::PciBus::Occupant& occupant) {
    occupant.function->SetRunning(running);
  });
}

Status DeviceTree::RequestRemoval(std::string_view id) {
  if (const auto child = std::ranges::find(children_, id, &Child::id);
      child != children_.end() && !id.empty()) {
    const std::string name(id);
    children_.erase(child);
    Tell(kDeleted, name);
    return {};
  }
  const auto [bus, occupant] = pci_->FindById(id);
  if (occupant == nullptr) return Fail(Errc::kNotFound, fmt::format("Device '{}' not found", id));
  if (bus->parent() == nullptr || !bus->parent()->hotplug()) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Bus '{}' does not support hotplugging", bus->name()),
                "Only devices behind a pcie-root-port come and go while the guest runs.");
  }
  const auto now = std::chrono::steady_clock::now();
  if (occupant->leaving && now < occupant->asked_again_from) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Device {} is already in the process of unplug", id));
  }
  // Pressing the button once more would take the request back.
  if (bus->parent()->busy()) {
    return Fail(Errc::kInvalidArgument,
                "Hot-unplug failed: guest is busy (power indicator blinking)",
                "Try again in some seconds.");
  }
  occupant->leaving = true;
  occupant->asked_again_from = now + kTimeToLetGo;
  bus->parent()->RequestRemoval();
  return {};
}

}  // namespace holdfast::machine
