// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "devices/device_model.h"
#include "devices/vhost/kernel_vhost.h"
#include "devices/virtio/device.h"

namespace holdfast::devices::virtio {

/// A socket device (virtio 1.2, 5.10) that the kernel serves: AF_VSOCK between the guest, which has
/// an address of its own (its context id), and the host, whose context id is 2.
///
/// Receive and transmit queue are the kernel's. The event queue tells a guest that was saved and
/// goes on elsewhere that its connections are gone, and its context id perhaps another one.
///
/// Thread-safety: as Device; all on the loop's thread.
class VhostVsock final : public Device {
 public:
  struct Config {
    std::uint32_t guest_cid = 0;  ///< 3 or more
    bool seqpacket = true;        ///< offer SOCK_SEQPACKET where the kernel has it
  };
  /// Takes the context id, which the host then knows this guest by.
  /// @return kInvalidArgument if another guest has it; the failed system call
  static Result<std::unique_ptr<VhostVsock>> Create(EventLoop& loop,
                                                    std::unique_ptr<vhost::KernelVhost> kernel,
                                                    const Config& config);
  ~VhostVsock() override;

  std::uint16_t type() const noexcept override { return 19; }
  std::string_view name() const noexcept override { return "vhost-vsock"; }
  std::uint64_t features() const noexcept override { return features_; }
  std::uint64_t refused_common_features() const noexcept override {
    return kernel_->refused_ring_features();
  }
  std::span<const std::uint16_t> queue_sizes() const noexcept override { return kQueues; }
  EventLoop& loop() const noexcept override { return loop_; }
  void ReadConfig(std::uint64_t offset, std::span<std::byte> data) noexcept override;
  Status Activate(Transport& transport) override;
  void HandleQueue(unsigned index) override;
  void SetRunning(bool running) noexcept override;
  void Reset() noexcept override;

 private:
  static constexpr std::array<std::uint16_t, 3> kQueues = {128, 128, 128};  // QEMU's sizes
  static constexpr unsigned kServed = 2;                                    // by the kernel

  VhostVsock(EventLoop& loop, std::unique_ptr<vhost::KernelVhost> kernel, UniqueFd error,
             const Config& config);
  Status Serve(bool serve) const;
  Status TakeQueues();
  void TellReset();

  EventLoop& loop_;
  const std::unique_ptr<vhost::KernelVhost> kernel_;
  const UniqueFd error_;  // eventfd: the kernel found a queue broken
  const Config config_;
  const std::uint64_t features_;
  Transport* transport_ = nullptr;  // while active
  bool reset_untold_ = false;       // until the driver has a buffer for it
};

extern const DeviceModel kVhostVsockPci;

}  // namespace holdfast::devices::virtio
