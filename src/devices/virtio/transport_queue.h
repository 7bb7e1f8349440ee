// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "devices/virtio/device.h"

namespace holdfast::devices::virtio {

/// The DeviceQueue that transports give to their device: a ring, the eventfd of its kicks, and the
/// way its interrupts take.
///
/// Thread-safety: the thread of the device's loop; kick_fd() any.
class TransportQueue final : public DeviceQueue {
 public:
  struct Hooks {
    std::function<void()> kicked;                  ///< the driver wants something
    std::function<void()> interrupt;               ///< interrupt the driver for this queue
    std::function<void(const Error& why)> broken;  ///< the ring breaks the rules
  };
  /// @return the failed system call
  static Result<std::unique_ptr<TransportQueue>> Create(EventLoop& loop, Hooks hooks);
  ~TransportQueue() override;

  /// From here on the driver's requests are there, and kicks are listened to.
  /// @return kMalformed for a layout that cannot be
  Status Start(const AddressSpace& memory, const QueueLayout& layout);
  /// Back to not being ready; kicks of before are forgotten.
  void Stop() noexcept;

  bool ready() const noexcept override { return ring_.has_value(); }
  std::optional<Chain> Pop() override;
  void Unpop(Chain chain) override;
  void Push(const Chain& chain, std::uint32_t written) override;
  void Notify() override;
  void DisableKicks() override;
  bool EnableKicks() override;
  const QueueLayout& layout() const override { return layout_; }
  std::uint32_t position() const override { return ring_ ? ring_->position() : 0; }
  void set_position(std::uint32_t position) override;
  int kick_fd() const override { return kick_.get(); }
  void TakeKicks(bool taken) override;
  Result<int> call_fd() override;

 private:
  TransportQueue(EventLoop& loop, UniqueFd kick, Hooks hooks)
      : loop_(loop), kick_(std::move(kick)), hooks_(std::move(hooks)) {}

  EventLoop& loop_;
  const UniqueFd kick_;  // eventfd
  UniqueFd call_;        // eventfd, once somebody asked for it
  const Hooks hooks_;
  QueueLayout layout_;
  std::optional<Queue> ring_;
  bool listening_ = false;
};

}  // namespace holdfast::devices::virtio
