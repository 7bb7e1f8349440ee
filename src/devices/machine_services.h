// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include <holdfast/error.h>

namespace holdfast {
class RamBlock;
}

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

  /// Free page hinting, for those who copy the guest's memory while it runs and may leave out pages
  /// whose contents it does not need (virtio 1.2, 5.5.6). Nothing happens to the pages.
  enum class HintState : std::uint8_t {
    kIdle,     ///< nobody asked, or it is over
    kAsked,    ///< the guest was told
    kNaming,   ///< it names pages
    kNamed,    ///< it has named all it had
    kStopped,  ///< a round was stopped; the guest keeps what it has named
  };
  /// Called for each range the guest names: whole pages, in offsets of the block. On the balloon's
  /// thread; it must not call the balloon.
  using FreePages = std::function<void(RamBlock& block, std::uint64_t offset, std::uint64_t size)>;
  /// Asks the guest for its free pages. A page may be in use again when `free` hears of it, but
  /// then it was written after the round began. So whoever counts on the dirty log begins a round
  /// after reading the log, and ends it before reading it again.
  /// @return kUnsupported if the device was not made for it or the guest's driver does not know it
  virtual Status StartFreePageHinting(FreePages free) = 0;
  /// Ends the round: when it returns, `free` runs no more.
  virtual void StopFreePageHinting() = 0;
  /// The same for good: the guest takes back the pages of all rounds, which it did not use so far.
  virtual void FinishFreePageHinting() = 0;
  virtual HintState free_page_hinting() const noexcept = 0;

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
