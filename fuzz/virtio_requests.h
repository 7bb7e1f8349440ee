// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/event_loop.h"
#include "devices/virtio/device.h"
#include "devices/virtio/test_driver.h"

namespace holdfast::fuzz {

/// Does to a device what the input says, as a driver would. Each operation is a byte, modulo 8: 0
/// to 2 send a request to read, 3 one to fill in, 4 writes and 5 reads configuration space, 6 is a
/// reset and a new start, 7 lets the loop run. Requests are followed by a queue and a length of two
/// bytes, those to read then by so many bytes; configuration by an offset, and to write by four
/// bytes.
class Requests {
 public:
  explicit Requests(std::span<const std::uint8_t> input) : input_(input) {}

  void Run(devices::virtio::Device& device, devices::virtio::TestDriver& driver, EventLoop& loop) {
    const auto queues = static_cast<unsigned>(device.queue_sizes().size());
    for (unsigned step = 0; step < 256 && !input_.empty(); ++step) {
      const unsigned operation = Byte() % 8;
      if (operation <= 3) {
        Send(driver, Byte() % queues, operation == 3);
      } else if (operation == 4) {
        const std::uint64_t offset = Byte();
        const std::array<std::byte, 4> data = {std::byte{Byte()}, std::byte{Byte()},
                                               std::byte{Byte()}, std::byte{Byte()}};
        device.WriteConfig(offset, data);
      } else if (operation == 5) {
        std::array<std::byte, 8> data{};
        device.ReadConfig(Byte(), data);
      } else if (operation == 6) {
        driver.Stop();
        (void)driver.Start();
      } else {
        (void)loop.RunOnce(std::chrono::milliseconds(0));
      }
    }
  }

 private:
  static constexpr std::size_t kLongest = 4096;

  std::uint8_t Byte() {
    if (input_.empty()) return 0;
    const std::uint8_t byte = input_.front();
    input_ = input_.subspan(1);
    return byte;
  }
  void Send(devices::virtio::TestDriver& driver, unsigned queue, bool fill) {
    const std::size_t low = Byte();
    std::size_t length = 1 + (low | std::size_t{Byte()} << 8) % kLongest;
    if (!fill) length = std::min(length, input_.size());
    if (length == 0) return;
    GuestAddress address;
    if (fill) {
      address = driver.ram().Allocate(length);
    } else {
      address = driver.ram().Put(std::as_bytes(input_.first(length)));
      input_ = input_.subspan(length);
    }
    const devices::virtio::TestBuffer buffer{
        .address = address, .length = static_cast<std::uint32_t>(length), .device_writes = fill};
    driver.Send(queue, std::span(&buffer, 1));
    driver.Kick(queue);
    (void)driver.Take(queue);
  }

  std::span<const std::uint8_t> input_;
};

}  // namespace holdfast::fuzz
