// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>

#include <holdfast/unique_fd.h>

#include "base/event_loop.h"
#include "devices/device_model.h"
#include "devices/virtio/device.h"

namespace holdfast::devices::virtio {

/// An entropy device (virtio 1.2, 5.4): fills the driver's buffers from a source of random numbers,
/// at most `max_bytes` of them in each `period`.
///
/// Thread-safety: as Device; all on the loop's thread.
class VirtioRng final : public Device {
 public:
  struct Config {
    std::uint64_t max_bytes = INT64_MAX;
    std::chrono::milliseconds period{1 << 16};  // QEMU's default
  };
  /// @param source  read without blocking
  VirtioRng(EventLoop& loop, UniqueFd source, const Config& config);
  ~VirtioRng() override;

  std::uint16_t type() const noexcept override { return 4; }
  std::string_view name() const noexcept override { return "virtio-rng"; }
  std::uint64_t features() const noexcept override { return 0; }
  std::span<const std::uint16_t> queue_sizes() const noexcept override { return kQueues; }
  EventLoop& loop() const noexcept override { return loop_; }
  Status Activate(Transport& transport) override;
  void HandleQueue(unsigned index) override;
  void Reset() noexcept override;

 private:
  static constexpr std::array<std::uint16_t, 1> kQueues = {8};  // QEMU's size

  // Serves requests until there are no more, the quota is used up or the source is empty.
  void Serve();
  void WaitForSource();
  void WaitForPeriod();

  EventLoop& loop_;
  const UniqueFd source_;
  const Config config_;
  Transport* transport_ = nullptr;  // while active
  std::uint64_t quota_;             // bytes left in this period
  std::optional<EventLoop::TimerId> timer_;
  bool waiting_ = false;  // for the source to have more
};

extern const DeviceModel kVirtioRngPci;

}  // namespace holdfast::devices::virtio
