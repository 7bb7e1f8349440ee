// SPDX-License-Identifier: Apache-2.0
// Any bytes as what a guest does to the PCI buses: accesses to ports, to configuration space and to
// wherever BARs lie, of a root complex with a test device, a root port and a device behind it,
// which comes and goes.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>

#include <holdfast/address_space.h>

#include "base/event_loop.h"
#include "devices/device_model.h"
#include "devices/pci/bridge.h"
#include "devices/pci/pci_host.h"
#include "devices/pci/root_port.h"
#include "devices/pci/test_device.h"
#include "devices/pci/test_services.h"

namespace {

namespace devices = holdfast::devices;
namespace pci = holdfast::devices::pci;

constexpr std::uint64_t kEcam = 0xb0000000;
constexpr pci::Windows kWindows{.io = {0x1000, 0xf000},
                                .memory32 = {0xc0000000, 0x3ec00000},
                                .memory64 = {1ULL << 32, 1ULL << 35}};

template <typename T>
T Take(std::span<const std::uint8_t>& data) {
  T value{};
  const std::size_t count = std::min(sizeof value, data.size());
  if (count != 0) std::memcpy(&value, data.data(), count);
  data = data.subspan(count);
  return value;
}

pci::PciBus::Occupant& Put(pci::PciHost& host, pci::PciBus& bus, const devices::DeviceModel& model,
                           const devices::DeviceEnvironment& environment) {
  auto function = model.create(environment, "rp", {});
  if (!function) std::abort();
  auto added = host.Add(bus, {.model = std::string(model.name)}, *std::move(function));
  if (!added) std::abort();
  return **added;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  std::span<const std::uint8_t> data(bytes, size);
  auto loop = holdfast::EventLoop::Create();
  if (!loop) std::abort();
  const holdfast::AddressSpace memory(nullptr);
  pci::testing::FakeServices services;
  const devices::Backends backends;
  const devices::DeviceEnvironment environment{
      .loop = **loop, .memory = memory, .pci = services, .backends = backends, .emit = {}};
  devices::Bus io;
  devices::Bus mmio;
  auto made = pci::PciHost::Create(services, io, mmio, holdfast::GuestAddress(kEcam), kWindows);
  if (!made) std::abort();
  pci::PciHost& host = **made;
  Put(host, host.root(), pci::kPciTestdev, environment);
  pci::Bridge& port = *Put(host, host.root(), pci::kPcieRootPort, environment).bridge;
  bool released = false;
  port.set_released([&released] { released = true; });
  Put(host, port.secondary(), pci::kPciTestdev, environment);
  host.AssignResources();

  for (unsigned step = 0; step < 2000 && !data.empty(); ++step) {
    const auto what = Take<std::uint8_t>(data);
    const auto where = Take<std::uint32_t>(data);
    auto value = Take<std::array<std::byte, 8>>(data);
    const auto access = std::span(value).first(std::size_t{1} << (what >> 3 & 3));
    const bool write = (what & 0x20) != 0;
    const auto reach = [&](const devices::Bus& bus, std::uint64_t address) {
      write ? bus.Write(address, access) : bus.Read(address, access);
    };
    switch (what & 7) {
      case 0:
        reach(io, 0xcf8 + where % 8);
        break;
      case 1:
        reach(io, 0x1000 + where % 0x80);
        break;
      case 2:  // two buses with a few slots: most of ECAM is empty
        reach(mmio, kEcam + (std::uint64_t{where & 1} << 20) + (where >> 1 & 0x1ffff));
        break;
      case 3:
        reach(mmio, kWindows.memory32.base + where % 0x400000);
        break;
      case 4:
        reach(mmio, kWindows.memory64.base + where % 0x400000);
        break;
      case 5:
        reach(mmio, where);
        break;
      case 6:
        if (port.secondary().empty()) {
          Put(host, port.secondary(), pci::kPciTestdev, environment);
          port.OccupantCame();
        } else {
          port.RequestRemoval();
        }
        break;
      default:
        if (!(*loop)->RunOnce(std::chrono::milliseconds(0))) std::abort();
        if (released) {
          host.Remove(port.secondary(), {0, 0});
          port.OccupantWent();
        }
        released = false;
        if ((where & 0xff) == 0) host.Reset();
    }
  }
  return 0;
}
