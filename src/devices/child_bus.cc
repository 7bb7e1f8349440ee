// SPDX-License-Identifier: Apache-2.0
#include "devices/child_bus.h"

#include <fmt/format.h>

namespace holdfast::devices {

void ChildDevice::VisitState(state::Fields&) {}

Status ChildDevice::Migratable() const {
  return {};
}

Result<ChildBus*> ChildBuses::Find(std::string_view name, std::string_view type,
                                   std::string_view model) const {
  if (name.empty()) {
    for (const auto& [unused, bus] : buses_)
      if (bus->type() == type) return bus;
    return Fail(Errc::kNotFound, fmt::format("No '{}' bus found for device '{}'", type, model),
                "The device that has such a bus stands before it on the command line.");
  }
  const auto found = buses_.find(name);
  if (found == buses_.end()) return Fail(Errc::kNotFound, fmt::format("Bus '{}' not found", name));
  if (found->second->type() != type) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("Device '{}' can't go on {} bus", model, found->second->type()));
  }
  return found->second;
}

std::vector<std::string> ChildBuses::Names() const {
  std::vector<std::string> names;
  for (const auto& [name, unused] : buses_) names.push_back(name);
  return names;
}

std::string ChildBuses::NameOf(const ChildBus& bus) const {
  for (const auto& [name, each] : buses_)
    if (each == &bus) return name;
  return {};
}

}  // namespace holdfast::devices
