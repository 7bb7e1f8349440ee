// SPDX-License-Identifier: Apache-2.0
// Any bytes as the requests of a guest's driver to a disk: the first byte chooses the rings and the
// disk (virtio-blk, or scsi-hd and scsi-cd behind virtio-scsi), then each request is a queue, the
// size of the part the device writes, the size of the part it reads, and that part.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "base/event_loop.h"
#include "devices/block/drive.h"
#include "devices/block/null_device.h"
#include "devices/scsi/scsi_disk.h"
#include "devices/virtio/test_driver.h"
#include "devices/virtio/virtio_blk.h"
#include "devices/virtio/virtio_scsi.h"

namespace {

namespace devices = holdfast::devices;
using devices::virtio::TestBuffer;
using devices::virtio::TestDriver;
using holdfast::EventLoop;

constexpr std::uint64_t kDisk = 1ULL << 30;

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size) : data_(data, size) {}
  bool empty() const { return data_.empty(); }
  std::uint8_t Byte() { return Bytes(1).empty() ? std::uint8_t{0} : last_; }
  std::span<const std::uint8_t> Bytes(std::size_t count) {
    const auto taken = data_.first(std::min(count, data_.size()));
    data_ = data_.subspan(taken.size());
    last_ = taken.empty() ? std::uint8_t{0} : taken[0];
    return taken;
  }

 private:
  std::span<const std::uint8_t> data_;
  std::uint8_t last_ = 0;
};

void Drive(TestDriver& driver, EventLoop& loop, Input& input, unsigned queues) {
  if (!driver.Start(16)) std::abort();
  for (unsigned i = 0; i < 64 && !input.empty(); ++i) {
    const unsigned queue = input.Byte() % queues;
    const auto writable = static_cast<std::uint32_t>(input.Byte() * 24);
    const auto bytes = std::as_bytes(input.Bytes(input.Byte()));
    std::vector<TestBuffer> buffers;
    if (!bytes.empty()) {
      // Cut in two, as drivers do behind the header.
      const std::size_t head = std::min<std::size_t>(bytes.size(), 16);
      buffers.push_back({driver.ram().Put(bytes.first(head)), static_cast<std::uint32_t>(head)});
      if (head < bytes.size()) {
        buffers.push_back({driver.ram().Put(bytes.subspan(head)),
                           static_cast<std::uint32_t>(bytes.size() - head)});
      }
    }
    if (writable != 0) buffers.push_back({driver.ram().Allocate(writable), writable, true});
    if (buffers.empty()) continue;
    driver.Send(queue, buffers);
    if (!loop.RunOnce(std::chrono::milliseconds(0))) std::abort();
    for (unsigned each = 0; each < queues; ++each) {
      while (driver.Take(each)) {
      }
    }
    if (!driver.needs_reset().empty()) {
      driver.Stop();
      if (!driver.Start(16)) std::abort();
    }
  }
  driver.Stop();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  auto loop = EventLoop::Create();
  if (!loop) std::abort();
  Input input(data, size);
  const std::uint8_t choice = input.Byte();
  std::uint64_t features = ~0ULL;
  if ((choice & 1) == 0) features &= ~std::uint64_t{devices::virtio::kFeatureRingPacked};
  devices::block::NullDevice medium("null", kDisk, /*read_zeroes=*/true, (choice & 2) != 0);
  devices::block::NullDevice disc("disc", kDisk, /*read_zeroes=*/true, /*readonly=*/true);
  devices::block::Drive drive("drive", &medium, nullptr);
  devices::block::Drive tray("tray", &disc, nullptr);
  if (!drive.Attach({.name = "disk"}) || !tray.Attach({.name = "cd", .removable = true})) {
    std::abort();
  }
  if ((choice & 4) == 0) {
    devices::virtio::VirtioBlk disk(devices::DeviceThread(**loop), drive, {});
    TestDriver driver(disk, **loop, features);
    Drive(driver, **loop, input, 1);
    return 0;
  }
  devices::virtio::VirtioScsi adapter(devices::DeviceThread(**loop), {}, nullptr, "scsi.0");
  devices::scsi::Identity hard_disk;
  devices::scsi::Identity cd;
  cd.cdrom = true;
  cd.block_size = 2048;
  devices::scsi::ScsiDisk first(**loop, drive, hard_disk);
  devices::scsi::ScsiDisk second(**loop, tray, cd);
  if (!adapter.bus().Add({.target = 0, .lun = 0}, first) ||
      !adapter.bus().Add({.target = 1, .lun = 0}, second)) {
    std::abort();
  }
  {
    TestDriver driver(adapter, **loop, features);
    Drive(driver, **loop, input, 3);
  }
  adapter.bus().Remove(first);
  adapter.bus().Remove(second);
  return 0;
}
