// SPDX-License-Identifier: Apache-2.0
// The devices that the user asks for.
#include <fmt/format.h>

#include "machine/machine_impl.h"
#include "machine/pci_layout.h"

namespace holdfast::machine {

Status Machine::Impl::CreateDevices(unsigned guest_phys_bits) {
  services_.ram_size = ram_.total_size();
  services_.watchdog = [this] { OnWatchdog(); };
  HF_TRY(devices_, DeviceTree::Create(
                       {.loop = loop_,
                        .vm = vm_,
                        .memory = ram_,
                        .io = platform_->io_bus(),
                        .mmio = platform_->mmio_bus(),
                        .ecam = boot::kEcam.base,
                        .windows = PlanPci(ram_.end().value(), guest_phys_bits),
                        .backends = config_.backends != nullptr ? *config_.backends : no_backends_,
                        .emit = [this](std::string_view name, const nlohmann::json& data) {
                          if (events_.device_event) events_.device_event(name, data);
                        },
                        .services = services_}));
  for (const devices::DeviceRequest& request : config_.devices) {
    if (Status added = devices_->Add(request, /*hot=*/false); !added) {
      return Fail(std::move(added).error().Wrap(
          request.id.empty() ? fmt::format("-device {}", request.model->name)
                             : fmt::format("-device {},id={}", request.model->name, request.id)));
    }
  }
  devices_->pci().AssignResources();
  return {};
}

}  // namespace holdfast::machine
