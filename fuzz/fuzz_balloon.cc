// SPDX-License-Identifier: Apache-2.0
// Requests of a guest's balloon driver; virtio_requests.h says how they are written down.
#include <cstdint>
#include <cstdlib>
#include <memory>

#include <holdfast/ram_block.h>

#include "devices/virtio/virtio_balloon.h"
#include "fuzz/virtio_requests.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using holdfast::devices::virtio::TestDriver;
  using holdfast::devices::virtio::VirtioBalloon;
  static const std::unique_ptr<holdfast::EventLoop> loop = *holdfast::EventLoop::Create();
  holdfast::devices::MachineServices services;
  services.ram_size = 16ULL << 20;
  VirtioBalloon balloon(holdfast::devices::DeviceThread(*loop), "b", services,
                        {.free_page_hint = true, .free_page_reporting = true}, {});
  TestDriver driver(balloon, *loop);
  if (!driver.Start()) return 0;
  balloon.SetPollingInterval(1);
  // The first round's command id is known, so inputs can have it in front of their hints.
  if (!balloon.StartFreePageHinting(
          [](holdfast::RamBlock& block, std::uint64_t offset, std::uint64_t bytes) {
            if (bytes == 0 || offset > block.size() || bytes > block.size() - offset) std::abort();
          })) {
    std::abort();
  }
  holdfast::fuzz::Requests({data, size}).Run(balloon, driver, *loop);
  balloon.StopFreePageHinting();
  (void)balloon.stats();
  return 0;
}
