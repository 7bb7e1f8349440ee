// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <utility>

#include "devices/bus.h"

namespace holdfast::devices {

/// pvpanic, the ISA form: one byte at offset 0. The guest reads which events it may report and
/// writes the event that has happened. Spec: QEMU, docs/specs/pvpanic.
///
/// Thread-safety: any thread; the callback runs on the vCPU's.
class Pvpanic final : public BusDevice {
 public:
  enum class Event : std::uint8_t {
    kPanicked = 1 << 0,     ///< The guest has crashed and stands still.
    kCrashLoaded = 1 << 1,  ///< The guest has crashed and boots its crash kernel.
  };
  static constexpr std::uint16_t kDefaultPort = 0x505;
  static constexpr std::uint8_t kAllEvents = 0x03;
  using Callback = std::function<void(Event)>;

  /// Offers those of `events` that exist.
  Pvpanic(std::uint8_t events, Callback callback)
      : events_(events & kAllEvents), callback_(std::move(callback)) {}

  std::string_view name() const noexcept override { return "pvpanic"; }
  void Read(std::uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(std::uint64_t offset, std::span<const std::byte> data) noexcept override;
  void Reset() noexcept override {}

 private:
  const std::uint8_t events_;
  const Callback callback_;
};

}  // namespace holdfast::devices
