// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "devices/device_model.h"
#include "devices/device_thread.h"
#include "devices/scsi/scsi_bus.h"
#include "devices/virtio/device.h"

namespace holdfast::devices::virtio {

/// A SCSI adapter (virtio 1.2, 5.6) and its bus. Queue 0 is control, 1 events, the others requests.
///
/// Guest mistakes: a request without room for its answer breaks the device; one to a target or unit
/// that is not there, with data both ways or with a buffer too small, gets the answer the standard
/// has for it. Thread-safety: as Device; adapter and disks work on one
/// thread.
class VirtioScsi final : public Device {
 public:
  struct Config {
    std::string iothread;
    std::uint64_t num_queues = 1;
    std::uint64_t queue_size = 256;
    bool seg_max_adjust = true;
    std::uint64_t max_sectors = 0xffff;
    std::uint64_t cmd_per_lun = 128;
    bool hotplug = true;
    bool param_change = true;
  };
  /// @param thread  what it and its disks work on
  /// @param buses  where the bus is listed as `bus_name`; may be null
  VirtioScsi(const DeviceThread& thread, const Config& config, ChildBuses* buses,
             std::string bus_name);
  ~VirtioScsi() override;

  scsi::ScsiBus& bus() noexcept { return *bus_; }

  std::uint16_t type() const noexcept override { return 8; }
  std::string_view name() const noexcept override { return "virtio-scsi"; }
  std::uint64_t features() const noexcept override;
  std::span<const std::uint16_t> queue_sizes() const noexcept override { return queue_sizes_; }
  EventLoop& loop() const noexcept override { return bus_->thread().loop(); }
  void ReadConfig(std::uint64_t offset, std::span<std::byte> data) noexcept override;
  void WriteConfig(std::uint64_t offset, std::span<const std::byte> data) noexcept override;
  Status Activate(Transport& transport) override;
  void HandleQueue(unsigned index) override;
  /// As VirtioBlk, for all disks.
  void SetRunning(bool running) noexcept override;
  void VisitState(state::Fields& fields) override;
  void Reset() noexcept override;

 private:
  struct Pending;

  void HandleControl();
  void HandleRequests(unsigned index);
  void Start(unsigned queue, Chain chain);
  void Answer(Pending& pending);
  void AnswerWithout(const std::shared_ptr<Pending>& pending, std::uint8_t response);
  void ReportLuns(const std::shared_ptr<Pending>& pending, std::uint8_t target);
  void InquireAbsent(const std::shared_ptr<Pending>& pending);
  std::uint8_t Manage(std::uint32_t function, std::span<const std::uint8_t> lun);
  void UnitChanged(scsi::UnitAddress where, bool added);
  void SendEvent(std::uint32_t event, scsi::UnitAddress where, std::uint32_t reason);
  void NotifyQueues();

  const Config config_;
  ChildBuses* const buses_;
  std::vector<std::uint16_t> queue_sizes_;
  const std::shared_ptr<scsi::ScsiBus> bus_;
  std::atomic<std::uint32_t> sense_size_ = 96;
  std::atomic<std::uint32_t> cdb_size_ = 32;

  // The loop's.
  Transport* transport_ = nullptr;  // while active
  std::vector<bool> answered_;
  bool events_missed_ = false;
  bool resetting_ = false;
};

extern const DeviceModel kVirtioScsiPci;

}  // namespace holdfast::devices::virtio
