// SPDX-License-Identifier: Apache-2.0
// Requests of a guest's balloon driver; virtio_requests.h says how they are written down.
#include <cstdint>
#include <memory>

#include "devices/virtio/virtio_balloon.h"
#include "fuzz/virtio_requests.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using holdfast::devices::virtio::TestDriver;
  using holdfast::devices::virtio::VirtioBalloon;
  static const std::unique_ptr<holdfast::EventLoop> loop = *holdfast::EventLoop::Create();
  holdfast::devices::MachineServices services;
  services.ram_size = 16ULL << 20;
  VirtioBalloon balloon(*loop, "b", services, {.free_page_reporting = true}, {});
  TestDriver driver(balloon, *loop);
  if (!driver.Start()) return 0;
  balloon.SetPollingInterval(1);
  holdfast::fuzz::Requests({data, size}).Run(balloon, driver, *loop);
  (void)balloon.stats();
  return 0;
}
