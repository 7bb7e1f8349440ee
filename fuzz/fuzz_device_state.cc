// SPDX-License-Identifier: Apache-2.0
// States of virtio devices on PCI that nobody saved: loaded, and run once. The first byte of the
// input chooses the device, the second what is in memory (0: nothing, else the input). With a third
// byte that is odd the rest is the state; otherwise it changes a state that was saved of an active
// device, by three bytes each: an offset and what is there.
#include <fcntl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/state.h"
#include "devices/block/drive.h"
#include "devices/block/null_device.h"
#include "devices/net/net_features.h"
#include "devices/net/network.h"
#include "devices/pci/test_services.h"
#include "devices/test_support.h"
#include "devices/virtio/pci_transport.h"
#include "devices/virtio/serial_port.h"
#include "devices/virtio/test_driver.h"
#include "devices/virtio/virtio_balloon.h"
#include "devices/virtio/virtio_blk.h"
#include "devices/virtio/virtio_net.h"
#include "devices/virtio/virtio_pci_regs.h"
#include "devices/virtio/virtio_rng.h"
#include "devices/virtio/virtio_serial.h"

namespace {

using namespace holdfast;
using namespace holdfast::devices;
using namespace holdfast::devices::virtio;
using namespace holdfast::devices::virtio::regs;

// All that the devices are made with; what is static outlives every input.
struct World {
  std::unique_ptr<EventLoop> loop = *EventLoop::Create();
  pci::testing::FakeServices services;
  Backends backends;
  MachineServices machine;
  net::Network network{*loop, [](std::string_view, const nlohmann::json&) {}};
  std::unique_ptr<block::BlockDevice> medium =
      std::make_unique<block::NullDevice>("null", 1ULL << 20, true, false);
};

struct Machine {
  Machine(World& world, unsigned which)
      : environment{*world.loop, ram.space(), world.services, world.backends,
                    [](std::string_view, const auto&) {}} {
    std::unique_ptr<virtio::Device> device;
    switch (which) {
      case 0:
        drive = std::make_unique<block::Drive>(
            "d", world.medium.get(),
            [](const block::Drive&, block::Operation, int, block::OnError) {});
        (void)drive->Attach({.name = "d"});
        device =
            std::make_unique<VirtioBlk>(DeviceThread(*world.loop), *drive, VirtioBlk::Config());
        break;
      case 1:
        device = *VirtioNet::Create(*world.loop, world.network, nullptr,
                                    {.name = "n", .features = ~0ULL & 0xffffff});
        break;
      case 2: {
        auto serial = std::make_unique<VirtioSerial>(*world.loop, "s.0", 3, nullptr);
        port = *SerialPort::Create(*serial, {.name = "p", .number = 1, .console = false}, &chardev,
                                   {});
        device = std::move(serial);
        break;
      }
      case 3:
        device = std::make_unique<VirtioRng>(
            *world.loop, UniqueFd(::open("/dev/zero", O_RDONLY | O_CLOEXEC)), VirtioRng::Config());
        break;
      default:
        device = std::make_unique<VirtioBalloon>(
            DeviceThread(*world.loop), "b", world.machine,
            VirtioBalloon::Config{.free_page_hint = true, .free_page_reporting = true},
            [](std::uint64_t) {});
    }
    queues = static_cast<unsigned>(device->queue_sizes().size());
    function =
        *PciTransport::Create(environment, "x", "virtio-x-pci",
                              TransportOptions{.packed = true, .vectors = {}}, std::move(device));
  }

  template <typename T>
  void Write(std::uint64_t offset, T value) {
    function->AccessWriteBar(kBar, offset, std::as_bytes(std::span(&value, 1)));
  }
  void Start(EventLoop& loop) {
    Write<std::uint8_t>(kDeviceStatus, 3);
    Write<std::uint32_t>(kDriverFeature, 0x30000000U | (queues == 2 ? 0x20U : 0));
    Write<std::uint32_t>(kDriverFeatureSelect, 1);
    Write<std::uint32_t>(kDriverFeature, 1);
    Write<std::uint8_t>(kDeviceStatus, 11);
    for (std::uint16_t i = 0; i < queues; ++i) {
      const TestQueue queue(ram, 4, false, true, true);
      Write<std::uint16_t>(kQueueSelect, i);
      Write<std::uint16_t>(kQueueSize, 4);
      Write<std::uint64_t>(kQueueDescriptors, queue.layout().descriptors.value());
      Write<std::uint64_t>(kQueueDriver, queue.layout().driver_area.value());
      Write<std::uint64_t>(kQueueDevice, queue.layout().device_area.value());
      Write<std::uint16_t>(kQueueEnable, 1);
    }
    Write<std::uint8_t>(kDeviceStatus, 15);
    (void)loop.RunOnce(std::chrono::milliseconds(0));
  }

  TestMemory ram{1ULL << 20};
  DeviceEnvironment environment;
  devices::testing::FakeChardev chardev;
  std::unique_ptr<block::Drive> drive;
  std::unique_ptr<SerialPort> port;
  unsigned queues = 0;
  std::unique_ptr<PciTransport> function;
};

std::vector<std::byte> SavedState(World& world, unsigned which) {
  Machine machine(world, which);
  machine.Start(*world.loop);
  machine.function->SetRunning(false);
  state::Fields fields(1);
  machine.function->VisitState(fields);
  return std::move(fields).Take();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static World world;
  world.machine.ram_size = 16ULL << 20;
  if (size < 3) return 0;
  const unsigned which = data[0] % 5;
  const auto input = std::as_bytes(std::span(data + 3, size - 3));
  std::vector<std::byte> state(input.begin(), input.end());
  if (data[2] % 2 == 0) {
    static const std::array<std::vector<std::byte>, 5> saved = {
        SavedState(world, 0), SavedState(world, 1), SavedState(world, 2), SavedState(world, 3),
        SavedState(world, 4)};
    state = saved[which];
    for (std::size_t i = 0; i + 3 <= input.size(); i += 3) {
      const std::size_t at =
          std::to_integer<std::size_t>(input[i]) | std::to_integer<std::size_t>(input[i + 1]) << 8;
      state[at % state.size()] = input[i + 2];
    }
  }
  Machine machine(world, which);
  if (data[1] != 0 && !input.empty()) {
    const auto bytes = machine.ram.bytes();
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = input[i % input.size()];
  }
  machine.function->SetRunning(false);
  state::Fields fields(1, state);
  machine.function->VisitState(fields);
  machine.function->SetRunning(true);
  for (unsigned i = 0; i < machine.queues; ++i) {
    machine.Write<std::uint16_t>(kNotifyAt + std::uint64_t{4} * i, 0);
  }
  for (int i = 0; i < 3; ++i) (void)world.loop->RunOnce(std::chrono::milliseconds(0));
  machine.function->SetRunning(false);
  state::Fields again(1);
  machine.function->VisitState(again);
  return 0;
}
