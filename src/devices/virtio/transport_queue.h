// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "devices/virtio/device.h"
#include "devices/virtio/queue_state.h"

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
  /// @param from  where it was saved; null: the driver has just made it
  /// @return kMalformed for a layout that cannot be, and for requests of `from` that are not in RAM
  Status Start(const AddressSpace& memory, const QueueLayout& layout,
               const QueueState* from = nullptr);
  /// Back to not being ready; kicks of before are forgotten.
  void Stop() noexcept;

  /// While held, Pop() gives nothing and the rings are left alone, because the machine stands.
  void Hold(bool held) noexcept;
  /// How it stands while it is held, as Start() takes it.
  /// @return an error if the device has requests that it neither answered nor gave back
  Result<QueueState> Save(const AddressSpace& memory) const;
  /// Interrupts the driver, which may have missed one.
  void Interrupt() const { hooks_.interrupt(); }

  bool ready() const noexcept override { return ring_.has_value(); }
  std::optional<Chain> Pop() override;
  void Unpop(Chain chain) override;
  void Requeue(Chain chain) override;
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
  bool held_ = false;
  std::deque<Chain> again_;    // given by Pop() before the ring's
  std::size_t requeued_ = 0;   // since it was held: the first of them
  bool popped_again_ = false;  // the last one popped was of again_
};

}  // namespace holdfast::devices::virtio
