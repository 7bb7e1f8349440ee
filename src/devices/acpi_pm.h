// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

#include "base/state.h"
#include "base/thread_annotations.h"
#include "devices/acpi_pm_regs.h"
#include "devices/bus.h"

namespace holdfast::devices {

/// ACPI fixed hardware: power button, soft off, PM timer, reset register (acpi_pm_regs.h).
///
/// Of the general purpose events only those happen that Raise() makes happen. The timer's overflow
/// status (TMR_STS) is never set: nobody uses it where a better clock exists. Sleep types other
/// than S5 do nothing.
///
/// Thread-safety: everything from any thread. The callbacks run on the thread of the vCPU that
/// wrote, without the device's lock.
class AcpiPm final : public BusDevice {
 public:
  struct Callbacks {
    std::function<void()> reset;
    std::function<void()> shutdown;
  };
  /// Nanoseconds of a monotonic clock.
  using Clock = std::function<std::uint64_t()>;

  /// All that a snapshot needs.
  struct State {
    std::uint16_t pm1_status = 0;
    std::uint16_t pm1_enable = 0;
    std::uint16_t pm1_control = 0;
    std::array<std::uint8_t, acpi::kGpe0Length / 2> gpe0_status{};
    std::array<std::uint8_t, acpi::kGpe0Length / 2> gpe0_enable{};
    std::uint8_t smi_command = 0;
    std::uint8_t smi_status = 0;
    std::uint8_t reset_control = 0;
    std::uint32_t timer = 0;  // the timer's value when saved
  };

  /// `sci` is level-triggered (irq acpi::kSciIrq) and outlives the device. `clock` is
  /// CLOCK_MONOTONIC if empty.
  AcpiPm(InterruptLine& sci, Callbacks callbacks, Clock clock = {});

  /// Maps all its ranges into the I/O ports.
  Status MapOn(Bus& io);

  std::string_view name() const noexcept override { return "acpi-pm"; }
  void Read(std::uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(std::uint64_t offset, std::span<const std::byte> data) noexcept override;
  void Reset() noexcept override;

  /// The user presses the power button: an SCI if the guest has asked for it.
  void PressPowerButton() noexcept;
  /// General purpose event `event` (below 64) happens: an SCI if the guest has enabled it.
  void Raise(unsigned event) noexcept;

  /// The PM timer goes on from where it was. Main thread, vCPUs standing.
  void VisitState(state::Fields& fields);
  State Save() const;
  void Restore(const State& state);

 private:
  enum class Action : std::uint8_t { kNone, kReset, kShutdown };

  std::uint8_t ReadByte(std::uint64_t offset, std::uint32_t timer) const HF_REQUIRES(mutex_);
  Action WriteByte(std::uint64_t offset, std::uint8_t value) HF_REQUIRES(mutex_);
  Action WriteControl(std::uint16_t value) HF_REQUIRES(mutex_);
  std::uint32_t Timer() const HF_REQUIRES(mutex_);
  void UpdateSci() HF_REQUIRES(mutex_);

  InterruptLine& sci_;
  const Callbacks callbacks_;
  const Clock clock_;

  mutable Mutex mutex_;
  State state_ HF_GUARDED_BY(mutex_);
  std::uint32_t timer_offset_ HF_GUARDED_BY(mutex_);  // added to the clock's ticks
  bool level_ HF_GUARDED_BY(mutex_) = false;          // what sci_ was last set to
};

}  // namespace holdfast::devices
