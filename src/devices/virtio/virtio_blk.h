// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "devices/block/disk_options.h"
#include "devices/block/drive.h"
#include "devices/device_model.h"
#include "devices/device_thread.h"
#include "devices/virtio/device.h"

namespace holdfast::devices::virtio {

/// A disk (virtio 1.2, 5.2) on a drive of the host: any number of queues, all on one loop.
///
/// Guest mistakes: a request without room for its status breaks the device (NEEDS_RESET); any other
/// that is too short, out of range or cut wrongly gets VIRTIO_BLK_S_IOERR; one of an unknown type
/// VIRTIO_BLK_S_UNSUPP. Thread-safety: as Device.
class VirtioBlk final : public Device {
 public:
  struct Config : block::DiskOptions {
    std::string iothread;
    std::uint64_t num_queues = 1;
    std::uint64_t queue_size = 256;
    bool seg_max_adjust = true;
    bool config_wce = true;
    bool discard = true;
    bool write_zeroes = true;
    std::uint64_t max_discard_sectors = 4194303;       // 2 GiB less a sector, as QEMU
    std::uint64_t max_write_zeroes_sectors = 4194303;  // likewise
  };
  /// `drive` has a medium, and is released with the device.
  VirtioBlk(const DeviceThread& thread, block::Drive& drive, const Config& config);
  ~VirtioBlk() override;

  /// For DriveUser: the size has changed; requests that stopped the machine may be tried again.
  /// Main thread.
  void DriveResized();
  void RunAgain();

  std::uint16_t type() const noexcept override { return 2; }
  std::string_view name() const noexcept override { return "virtio-blk"; }
  std::uint64_t features() const noexcept override { return features_; }
  std::span<const std::uint16_t> queue_sizes() const noexcept override { return queue_sizes_; }
  EventLoop& loop() const noexcept override { return thread_.loop(); }
  void ReadConfig(std::uint64_t offset, std::span<std::byte> data) noexcept override;
  void WriteConfig(std::uint64_t offset, std::span<const std::byte> data) noexcept override;
  Status Activate(Transport& transport) override;
  void HandleQueue(unsigned index) override;
  /// A stop waits for the host's disks; what they could not do (werror=stop) is tried again.
  void SetRunning(bool running) noexcept override;
  void VisitState(state::Fields& fields) override;
  void Reset() noexcept override;

 private:
  struct Request {
    Chain chain;
    std::vector<iovec> data;
    unsigned queue = 0;
    block::Operation operation = block::Operation::kRead;
    std::uint64_t offset = 0;  // bytes
    std::uint64_t length = 0;  // bytes
    bool may_unmap = false;
    std::chrono::steady_clock::time_point since;
  };
  // What work that was posted finds; gone with the device.
  struct Self {
    VirtioBlk* device;
  };

  // Takes `request` on, or answers it; it is in neither of the lists while this runs.
  void Start(std::unique_ptr<Request> request);
  void StartTransfer(std::unique_ptr<Request> request, std::uint64_t sector);
  void StartRange(std::unique_ptr<Request> request);
  void AnswerId(std::unique_ptr<Request> request);
  void Submit(std::unique_ptr<Request> request);
  void Done(Request* request, int error);
  void Answer(std::unique_ptr<Request> request, std::uint8_t status);
  void Invalid(std::unique_ptr<Request> request);
  bool InRange(std::uint64_t sector, std::uint64_t bytes) const noexcept;
  std::unique_ptr<Request> Take();
  void NotifyQueues();
  std::array<std::byte, 60> BuildConfig() const noexcept;

  const DeviceThread thread_;
  block::Drive& drive_;
  const Config config_;
  const bool write_cache_;  // before a driver changed it
  std::vector<std::uint16_t> queue_sizes_;
  std::uint64_t features_ = 0;
  std::atomic<Transport*> transport_ = nullptr;  // while active
  const std::shared_ptr<Self> self_;

  // The loop's.
  std::unique_ptr<block::BlockDevice::Submitter> submitter_;
  std::vector<std::unique_ptr<Request>> stopped_;  // wait for the machine to run again
  std::vector<std::unique_ptr<Request>> idle_;
  std::vector<bool> answered_;  // by queue: the driver has not been told yet
  bool resetting_ = false;
};

extern const DeviceModel kVirtioBlkPci;

}  // namespace holdfast::devices::virtio
