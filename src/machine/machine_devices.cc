// SPDX-License-Identifier: Apache-2.0
// The devices that the user asks for.
#include <fmt/format.h>

#include "machine/machine_impl.h"
#include "machine/pci_layout.h"

namespace holdfast::machine {

Status Machine::Impl::CreateDevices(unsigned guest_phys_bits) {
  services_.ram_size = ram_.total_size();
  services_.watchdog = [this] { OnWatchdog(); };
  HF_TRY(devices_,
         DeviceTree::Create(
             {.loop = loop_,
              .vm = vm_,
              .memory = ram_,
              .io = platform_->io_bus(),
              .mmio = platform_->mmio_bus(),
              .ecam = boot::kEcam.base,
              .windows = PlanPci(ram_.end().value(), guest_phys_bits),
              .backends = config_.backends != nullptr ? *config_.backends : no_backends_,
              .emit =
                  [this](std::string_view name, const nlohmann::json& data) {
                    if (events_.device_event) events_.device_event(name, data);
                  },
              .while_standing = [this](const std::function<void()>& work) { WhileStanding(work); },
              .services = services_,
              .cpus = config_.smp.cpus}));
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

void Machine::Impl::WhileStanding(const std::function<void()>& work) {
  std::vector<VcpuThread*> stopped;
  if (state_ == RunState::kRunning) {
    for (const auto& vcpu : vcpus_) {
      vcpu->Stop();
      stopped.push_back(vcpu.get());
    }
  }
  for (VcpuThread* vcpu : stopped) vcpu->WaitUntilStanding();
  work();
  // One that stopped by itself has asked for something that is still to come.
  for (VcpuThread* vcpu : stopped)
    if (!vcpu->stopped_itself()) vcpu->Run();
}

Status Machine::Impl::AddDevice(const devices::DeviceRequest& request) {
  Status added;
  WhileStanding([&] { added = devices_->Add(request, /*hot=*/true); });
  return added;
}

Status Machine::Impl::RemoveDevice(std::string_view id) {
  Status removed;
  WhileStanding([&] { removed = devices_->RequestRemoval(id); });
  return removed;
}

}  // namespace holdfast::machine
