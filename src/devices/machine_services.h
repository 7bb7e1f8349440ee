// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace holdfast::devices {

/// A memory balloon as the control protocol knows it.
///
/// Thread-safety: the main thread.
class Balloon {
 public:
  Balloon() = default;
  Balloon(const Balloon&) = delete;
  Balloon& operator=(const Balloon&) = delete;
  virtual ~Balloon() = default;

  /// Asks the guest to leave itself about so many bytes; it does that when and if it likes.
  virtual void SetTarget(std::uint64_t bytes) = 0;
  /// What the guest has just now, in bytes.
  virtual std::uint64_t actual() const noexcept = 0;

  /// What the guest tells about its memory, in the order of virtio 1.2, 5.5.6.3.
  static constexpr std::size_t kStats = 16;
  struct GuestStats {
    std::array<std::optional<std::uint64_t>, kStats> values{};
    std::uint64_t last_update = 0;  ///< seconds since 1970; 0: never
  };
  /// QEMU's name of value `index`: "stat-swap-in".
  static std::string_view StatName(std::size_t index) noexcept;
  virtual GuestStats stats() const = 0;
  /// How often the guest is asked for them, in seconds; 0: not at all.
  virtual std::uint64_t polling_interval() const noexcept = 0;
  virtual void SetPollingInterval(std::uint64_t seconds) = 0;
  /// The user's name for the device, perhaps empty.
  virtual std::string_view id() const noexcept = 0;
};

/// What devices are to the machine around them, and it to them, where the control protocol knows
/// one by what it does and not by its id. The owner outlives all devices.
///
/// Thread-safety: the main thread.
struct MachineServices {
  Balloon* balloon = nullptr;      ///< set while there is one
  std::uint64_t ram_size = 0;      ///< bytes
  std::function<void()> watchdog;  ///< a watchdog has run out: does what -action watchdog= says
  std::string vm_generation_id;    ///< of vmgenid; empty: there is none
};

}  // namespace holdfast::devices
