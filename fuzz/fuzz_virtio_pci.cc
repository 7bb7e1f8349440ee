// SPDX-License-Identifier: Apache-2.0
// Any bytes as what a guest does to a virtio device on PCI: accesses to its BAR and its
// configuration space, writes to its own memory, and pauses in which the device's loop runs. The
// device is the entropy device; what is tried is the transport below it.
#include <fcntl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <span>

#include "base/event_loop.h"
#include "devices/device_model.h"
#include "devices/pci/function.h"
#include "devices/pci/test_services.h"
#include "devices/virtio/test_driver.h"
#include "devices/virtio/virtio_pci.h"
#include "devices/virtio/virtio_rng.h"

namespace {

namespace devices = holdfast::devices;
using holdfast::EventLoop;

constexpr std::uint64_t kMemory = 64 * 1024;

// The next number of the input; zeroes at its end.
class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data, size) {}
  bool empty() const { return data_.empty(); }
  template <typename T>
  T Take() {
    T value{};
    const std::size_t count = std::min(sizeof value, data_.size());
    if (count != 0) std::memcpy(&value, data_.data(), count);
    data_ = data_.subspan(count);
    return value;
  }

 private:
  std::span<const std::uint8_t> data_;
};

// Most registers are in the first bytes of each of the four pages.
std::uint64_t OffsetOf(std::uint16_t word) {
  return std::uint64_t{word & 3U} * 0x1000 + ((word >> 2) & 0x7f);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static devices::virtio::TestMemory memory(kMemory);
  std::ranges::fill(memory.bytes(), std::byte{0});
  auto loop = EventLoop::Create();
  if (!loop) std::abort();
  devices::pci::testing::FakeServices services;
  const devices::Backends backends;
  devices::DeviceEnvironment environment{**loop, memory.space(), services, backends,
                                         [](std::string_view, const auto&) {}};
  auto source = std::make_unique<devices::virtio::VirtioRng>(
      **loop, holdfast::UniqueFd(::open("/dev/zero", O_RDONLY | O_CLOEXEC)),
      devices::virtio::VirtioRng::Config{});
  devices::virtio::TransportOptions options;
  Input input(data, size);
  options.packed = input.Take<std::uint8_t>() % 2 != 0;
  auto made = devices::virtio::MakeVirtioPci(environment, "fuzz", "virtio-rng-pci", options,
                                             std::move(source));
  if (!made) std::abort();
  devices::pci::Function& function = **made;
  function.WriteConfig(0x20, 4, 0xc0000000);
  function.WriteConfig(0x04, 2, 0x6);

  for (unsigned step = 0; step < 2000 && !input.empty(); ++step) {
    const auto what = input.Take<std::uint8_t>();
    const auto word = input.Take<std::uint16_t>();
    std::array<std::byte, 8> bytes{};
    const std::size_t width = std::size_t{1} << (what / 8 % 4);
    const std::span<std::byte> access = std::span(bytes).first(width);
    switch (what % 8) {
      case 0:
      case 1:
      case 2:
        bytes = input.Take<std::array<std::byte, 8>>();
        function.AccessWriteBar(4, OffsetOf(word), access);
        break;
      case 3:
        function.AccessReadBar(4, OffsetOf(word), access);
        break;
      case 4: {
        const auto value = input.Take<std::uint64_t>();
        std::memcpy(memory.bytes().data() + (word & 0x1ff8), &value, sizeof value);
        break;
      }
      case 5:
        function.WriteConfig(word, static_cast<unsigned>(width), input.Take<std::uint32_t>());
        break;
      case 6:
        (void)function.ReadConfig(word, static_cast<unsigned>(width));
        break;
      default:
        if (!(*loop)->RunOnce(std::chrono::milliseconds(0))) std::abort();
    }
  }
  if (!(*loop)->RunOnce(std::chrono::milliseconds(0))) std::abort();
  return 0;
}
