// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "base/event_loop.h"
#include "base/thread_annotations.h"
#include "devices/device_model.h"
#include "devices/pci/function.h"

namespace holdfast::devices {

/// The watchdog of Intel's 6300ESB I/O controller: two stages, the second of which resets the
/// machine. Registers are written after a sequence that unlocks each write; interrupts between the
/// stages are not sent, as in QEMU. Spec: Intel 6300ESB data sheet, chapter 16.
///
/// Thread-safety: as pci::Function; `expired` is called on the loop's thread.
class I6300Esb final : public pci::Function {
 public:
  using Clock = EventLoop::Clock;

  /// `loop` outlives the device.
  I6300Esb(pci::PciServices& services, EventLoop& loop, std::function<void()> expired);
  ~I6300Esb() override;

  std::string_view name() const noexcept override { return "i6300esb"; }
  void ReadBar(unsigned bar, std::uint64_t offset, std::span<std::byte> data) noexcept override;
  void WriteBar(unsigned bar, std::uint64_t offset,
                std::span<const std::byte> data) noexcept override;
  void Reset() noexcept override;
  /// While the machine stands, so does the timer.
  void SetRunning(bool running) noexcept override;
  void VisitState(state::Fields& fields) override;

  /// When the running stage ends; nothing while it is off. For tests.
  std::optional<Clock::time_point> deadline() const noexcept;

 protected:
  void ConfigWritten(std::uint16_t offset, unsigned size) noexcept override;

 private:
  // The loop's timer. Work posted to the loop may run after the device is gone.
  struct Timer {
    EventLoop& loop;
    I6300Esb* device;  // null once it is gone; the loop's thread only, like the timer
    std::optional<EventLoop::TimerId> id;
  };
  enum class Unlock : std::uint8_t { kLocked, kFirst, kOpen };

  void WriteRegister(std::uint64_t offset, std::uint32_t value) HF_REQUIRES(mutex_);
  void StartStage(unsigned stage) HF_REQUIRES(mutex_);
  void PowerOn() HF_REQUIRES(mutex_);
  void Rearm();
  void OnTimer();

  const std::function<void()> expired_;
  const std::shared_ptr<Timer> timer_;

  mutable Mutex mutex_;
  std::uint32_t preload_[2] HF_GUARDED_BY(mutex_) = {};
  unsigned stage_ HF_GUARDED_BY(mutex_) = 1;
  Unlock unlock_ HF_GUARDED_BY(mutex_) = Unlock::kLocked;
  bool enabled_ HF_GUARDED_BY(mutex_) = false;
  bool locked_ HF_GUARDED_BY(mutex_) = false;
  bool free_run_ HF_GUARDED_BY(mutex_) = false;
  bool reboots_ HF_GUARDED_BY(mutex_) = true;
  bool fast_ HF_GUARDED_BY(mutex_) = false;         // counts at 1 MHz, not 1 kHz
  bool has_expired_ HF_GUARDED_BY(mutex_) = false;  // outlives the reset that follows
  std::optional<Clock::time_point> deadline_ HF_GUARDED_BY(mutex_);
  // While the machine stands instead of deadline_: what was left.
  std::optional<Clock::duration> left_ HF_GUARDED_BY(mutex_);
};

/// `i6300esb`.
extern const DeviceModel kI6300Esb;

}  // namespace holdfast::devices
