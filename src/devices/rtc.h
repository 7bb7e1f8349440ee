// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include "base/state.h"
#include "base/thread_annotations.h"
#include "devices/bus.h"

namespace holdfast {
class EventLoop;
}

namespace holdfast::devices {

/// What the PC's firmware leaves in CMOS memory, at QEMU's places.
struct CmosConfig {
  std::uint64_t ram_below_4g = 0;  ///< Bytes of RAM from address 0.
  std::uint64_t ram_above_4g = 0;  ///< Bytes of RAM from 4 GiB.
  unsigned cpus = 1;               ///< vCPUs at start; cell 0x5f.
};

/// An MC146818 real-time clock with 128 bytes of CMOS memory at ports 0x70 (index) and 0x71 (data).
///
/// Time is the host's, in UTC, plus the difference the guest made by setting it. Update-in-progress
/// (UIP) is set during the last 244 us of each second, as the data sheet has it: a guest that sees
/// it clear has that long to read a consistent time. The NMI mask (bit 7 of the index) is ignored.
/// Update-ended, alarm and periodic interrupts work; periodic ticks that the guest has not yet
/// acknowledged count as one, as on hardware, and the square wave is not there.
/// A date that does not exist, or outside 1900 to 2199, is not taken over.
/// Spec: Motorola MC146818A data sheet; century at 0x32, as QEMU's FADT says (and 0x37, PS/2).
///
/// Thread-safety: Read, Write, Save and Restore from any thread; construction, destruction, Reset
/// and the timers on the main loop's.
class Rtc final : public BusDevice {
 public:
  static constexpr std::uint16_t kPort = 0x70;
  static constexpr std::uint64_t kPortCount = 2;
  static constexpr unsigned kIrq = 8;

  /// Nanoseconds since 1970, UTC.
  using Clock = std::function<std::int64_t()>;

  /// All that a snapshot needs.
  struct State {
    std::uint8_t index = 0;
    std::array<std::uint8_t, 128> cells{};  // the time's cells count only while it is being set
    std::int64_t offset_ns = 0;             // guest's time minus the host's
  };

  /// `irq` (line kIrq) and `loop` outlive the device. Without a loop there are no interrupts, only
  /// the flags in register C. `clock` is CLOCK_REALTIME if empty.
  Rtc(EventLoop* loop, InterruptLine& irq, const CmosConfig& config, Clock clock = {});
  Rtc(const Rtc&) = delete;
  Rtc& operator=(const Rtc&) = delete;
  ~Rtc() override;

  /// Called when the guest has set the time, on its vCPU's thread and under the device's lock, with
  /// the difference to the clock in seconds. Before any vCPU runs.
  void SetTimeChanged(std::function<void(std::int64_t seconds)> changed) {
    time_changed_ = std::move(changed);
  }

  std::string_view name() const noexcept override { return "rtc"; }
  void Read(std::uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(std::uint64_t offset, std::span<const std::byte> data) noexcept override;
  /// Interrupts off; time and memory stay, as with a battery.
  void Reset() noexcept override;

  /// After a load the clock goes on from where it was; with `host_time` (nanoseconds since 1970)
  /// the time that has passed on that since the save is added. Before any vCPU runs.
  void CatchUpWith(Clock host_time) { host_time_ = std::move(host_time); }
  /// Main thread, vCPUs standing.
  void VisitState(state::Fields& fields) HF_EXCLUDES(mutex_);
  State Save() const;
  void Restore(const State& state);

 private:
  // The loop's timer; shared with work posted to the loop, which may run after we are gone.
  struct Alarm;

  std::uint8_t ReadCell(std::uint8_t index) HF_REQUIRES(mutex_);
  void WriteCell(std::uint8_t index, std::uint8_t value) HF_REQUIRES(mutex_);
  std::int64_t Now() const HF_REQUIRES(mutex_);
  bool Standing() const HF_REQUIRES(mutex_);
  void LoadTime(std::int64_t now) HF_REQUIRES(mutex_);
  void StoreTime() HF_REQUIRES(mutex_);
  std::uint8_t Encode(unsigned value) const HF_REQUIRES(mutex_);
  unsigned Decode(std::uint8_t value) const HF_REQUIRES(mutex_);
  std::uint8_t EncodeHour(unsigned hour) const HF_REQUIRES(mutex_);
  unsigned DecodeHour(std::uint8_t value) const HF_REQUIRES(mutex_);
  std::int64_t NextAlarm(std::int64_t after) const HF_REQUIRES(mutex_);
  std::int64_t NextTick(std::int64_t after) const HF_REQUIRES(mutex_);
  void Advance() HF_REQUIRES(mutex_);
  void UpdateInterrupt() HF_REQUIRES(mutex_);
  void Rearm() HF_REQUIRES(mutex_);
  void OnTimer();
  void Take(const State& state) HF_REQUIRES(mutex_);

  InterruptLine& irq_;
  const Clock clock_;
  Clock host_time_;  // empty: stands between save and load
  std::function<void(std::int64_t)> time_changed_;

  // Taken by vCPU threads and the main loop's.
  mutable Mutex mutex_;
  State state_ HF_GUARDED_BY(mutex_);
  std::int64_t flags_until_ HF_GUARDED_BY(mutex_);  // guest time up to which C's flags are right
  bool level_ HF_GUARDED_BY(mutex_) = false;        // what irq_ was last set to
  bool armed_ HF_GUARDED_BY(mutex_) = false;        // the loop has, or will have, a timer
  const std::shared_ptr<Alarm> alarm_;              // null without loop
};

}  // namespace holdfast::devices
