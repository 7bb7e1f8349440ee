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
#include "devices/bus.h"

namespace holdfast::devices {

/// A PC's keyboard controller without keyboard or mouse, and its neighbour port 0x92: what a guest
/// needs to reset the machine, and to find out quickly that there is nothing else.
///
/// Commands to the controller are answered; bytes for the keyboard or mouse go nowhere, so that a
/// driver's probe times out as with nothing plugged in. No interrupts. A20 is always on.
///
/// Thread-safety: any thread; the callback runs on the vCPU's, without the device's lock.
class I8042 final : public BusDevice {
 public:
  static constexpr std::uint16_t kDataPort = 0x60;
  static constexpr std::uint16_t kCommandPort = 0x64;
  static constexpr std::uint16_t kSystemControlPort = 0x92;

  // Status register.
  static constexpr std::uint8_t kStatusOutputFull = 0x01;
  static constexpr std::uint8_t kStatusSystemFlag = 0x04;
  static constexpr std::uint8_t kStatusCommand = 0x08;
  static constexpr std::uint8_t kStatusUnlocked = 0x10;

  /// All that a snapshot needs.
  struct State {
    std::uint8_t status = kStatusSystemFlag | kStatusUnlocked;  // without kStatusOutputFull
    std::uint8_t output = 0;                                    // the byte for the guest
    bool output_full = false;
    std::uint8_t command = 0;  // that waits for its data byte; 0: none
    std::uint8_t configuration = kPowerOnConfiguration;
    std::uint8_t system_control = kA20;
  };

  /// `reset`: the guest asks for a machine reset.
  explicit I8042(std::function<void()> reset);

  /// Maps its three ports.
  Status MapOn(Bus& io);

  std::string_view name() const noexcept override { return "i8042"; }
  void Read(std::uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(std::uint64_t offset, std::span<const std::byte> data) noexcept override;
  void Reset() noexcept override;

  /// Main thread, vCPUs standing.
  void VisitState(state::Fields& fields);
  State Save() const;
  void Restore(const State& state);

 private:
  static constexpr std::uint8_t kA20 = 0x02;
  // Keyboard and mouse clocks off (they are not there), translation on, POST passed.
  static constexpr std::uint8_t kPowerOnConfiguration = 0x74;

  // Both return whether to reset.
  bool WriteCommand(std::uint8_t value) HF_REQUIRES(mutex_);
  bool WriteData(std::uint8_t value) HF_REQUIRES(mutex_);
  void Answer(std::uint8_t value) HF_REQUIRES(mutex_);

  const std::function<void()> reset_;
  mutable Mutex mutex_;
  State state_ HF_GUARDED_BY(mutex_);
};

}  // namespace holdfast::devices
