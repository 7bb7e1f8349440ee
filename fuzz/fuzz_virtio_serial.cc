// SPDX-License-Identifier: Apache-2.0
// Requests of a guest's driver for virtio-serial, with a console and a port; virtio_requests.h says
// how they are written down.
#include <cstdint>
#include <memory>

#include "devices/test_support.h"
#include "devices/virtio/serial_port.h"
#include "devices/virtio/virtio_serial.h"
#include "fuzz/virtio_requests.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using holdfast::devices::testing::Bytes;
  using holdfast::devices::testing::FakeChardev;
  using holdfast::devices::virtio::SerialPort;
  using holdfast::devices::virtio::TestDriver;
  using holdfast::devices::virtio::VirtioSerial;
  static const std::unique_ptr<holdfast::EventLoop> loop = *holdfast::EventLoop::Create();
  FakeChardev console;
  FakeChardev far_end;
  far_end.room = 1000;
  VirtioSerial serial(*loop, "s.0", 3, nullptr);
  auto first = SerialPort::Create(serial, {.name = {}, .number = 0, .console = true}, &console, {});
  auto second =
      SerialPort::Create(serial, {.name = "p", .number = 1, .console = false}, &far_end, {});
  {
    TestDriver driver(serial, *loop);
    if (!driver.Start()) return 0;
    for (std::size_t part = 0; part < 4; ++part) {
      const std::size_t begin = size * part / 4;
      holdfast::fuzz::Requests({data + begin, size * (part + 1) / 4 - begin})
          .Run(serial, driver, *loop);
      (void)console.receive(Bytes("typed"));
      (void)far_end.receive(Bytes("said"));
      far_end.room = 1000;
      far_end.writable();
    }
  }
  return 0;
}
