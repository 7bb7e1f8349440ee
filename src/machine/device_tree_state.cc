// SPDX-License-Identifier: Apache-2.0
// The sections that devices are saved in.
#include <fmt/format.h>

#include "devices/pci/pci_bus.h"
#include "machine/device_tree.h"

namespace holdfast::machine {

namespace pci = devices::pci;

void DeviceTree::ListState(std::vector<state::Section>& sections) {
  sections.push_back(
      {.name = "pci-host", .visit = [this](state::Fields& fields) { pci_->VisitState(fields); }});
  pci_->ForEach([&](const pci::PciBus& bus, const pci::PciBus::Occupant& occupant) {
    pci::Function* const function = occupant.function.get();
    const pci::SlotFunction at = *occupant.placement.address;
    sections.push_back(
        {.name = fmt::format("pci/{}/{:02x}.{:x}/{}", bus.name(), at.slot, at.function,
                             function->name()),
         .version = function->state_version(),
         .visit = [function](state::Fields& fields) { function->VisitState(fields); }});
  });
  for (std::size_t i = 0; i < children_.size(); ++i) {
    const Child& child = children_[i];
    devices::ChildDevice* const device = child.device.get();
    sections.push_back(
        {.name = fmt::format("child/{}/{}/{}", child.bus,
                             child.id.empty() ? fmt::format("#{}", i) : child.id, child.model),
         .version = device->state_version(),
         .visit = [device](state::Fields& fields) { device->VisitState(fields); }});
  }
}

Status DeviceTree::Migratable() {
  Status first;
  const auto judge = [&](const std::string& id, std::string_view model, Status status) {
    if (!first || status) return;
    first = Fail(std::move(status).error().Wrap(id.empty() ? std::string(model)
                                                           : fmt::format("{} '{}'", model, id)));
  };
  pci_->ForEach([&](const pci::PciBus&, const pci::PciBus::Occupant& occupant) {
    judge(occupant.placement.id, occupant.function->name(), occupant.function->Migratable());
  });
  for (const Child& child : children_) judge(child.id, child.model, child.device->Migratable());
  return first;
}

}  // namespace holdfast::machine
