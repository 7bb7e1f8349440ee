// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include <holdfast/error.h>

#include "devices/block/block_device.h"
#include "object/throttle.h"

namespace holdfast::devices::block {

/// What becomes of a request the host could not do: `werror=`, `rerror=`.
enum class OnError : std::uint8_t {
  kReport,  ///< the guest gets an I/O error
  kIgnore,  ///< the guest is told it worked
  kStop,    ///< the machine stops; the request is tried again when it runs on
  kEnospc,  ///< kStop if the host has no room, else kReport
};
std::string_view OnErrorName(OnError action) noexcept;

/// `detect-zeroes=`: writes of nothing but zeroes become write-zeroes requests.
enum class DetectZeroes : std::uint8_t { kOff, kOn, kUnmap };

/// What was done with a drive. Thread-safety: any thread.
struct DriveStats {
  struct Counter {
    std::atomic<std::uint64_t> operations = 0;
    std::atomic<std::uint64_t> failed = 0;
    std::atomic<std::uint64_t> invalid = 0;  ///< refused before the host saw them
    std::atomic<std::uint64_t> bytes = 0;
    std::atomic<std::uint64_t> nanoseconds = 0;
  };
  Counter read;
  Counter write;
  Counter flush;
  Counter unmap;
  Counter& of(Operation operation) noexcept;
};

/// The device that a drive is plugged into. Functions may be empty; they are called on the main
/// thread.
struct DriveUser {
  std::string name;                    ///< qdev id or path, for queries and events
  std::function<void()> resized = {};  ///< the size has changed
  std::function<void()> run_again =
      {};  ///< the machine runs on: requests that stopped it may be tried
  /// The medium is about to go: end what is under way, drop all submitters, and leave the medium
  /// alone until it has changed.
  std::function<void()> medium_going = {};
  std::function<void()> medium_changed = {};
  bool removable = false;  ///< has a tray
};

/// What a device plugs into: a medium (or none) with policies, limits and statistics.
///
/// Thread-safety: the main thread; from any thread where it says so.
class Drive {
 public:
  /// What the drive tells its surroundings: an error with what became of it. Any thread.
  using ErrorSink =
      std::function<void(Drive& drive, Operation operation, int error, OnError outcome)>;

  /// `id` may be empty: a -blockdev node that a device uses directly. `medium` outlives it.
  Drive(std::string id, BlockDevice* medium, ErrorSink errors);
  Drive(const Drive&) = delete;
  Drive& operator=(const Drive&) = delete;
  ~Drive();

  const std::string& id() const noexcept { return id_; }
  /// Null: an empty tray.
  BlockDevice* medium() const noexcept { return medium_; }
  /// Exchanges the medium under the device that uses it.
  Status SetMedium(BlockDevice* medium);
  std::uint64_t size() const noexcept { return medium_ == nullptr ? 0 : medium_->size(); }
  bool readonly() const noexcept { return medium_ != nullptr && medium_->readonly(); }
  Status Resize(std::uint64_t bytes);

  /// Plugs a device in, which works in units of `block_size` bytes.
  /// @return the error if there is one already; what BlockDevice::PrepareFor() says
  Status Attach(DriveUser user, std::uint32_t block_size = 512, bool share_write = false);
  void Detach() noexcept;
  const DriveUser* user() const noexcept { return user_ ? &*user_ : nullptr; }
  DriveUser* user() noexcept { return user_ ? &*user_ : nullptr; }

  /// Requests of the attached device, on the thread of `loop`. Writes are checked for zeroes, held
  /// back by limits, and made durable at once while the write cache is off.
  Result<std::unique_ptr<BlockDevice::Submitter>> MakeSubmitter(EventLoop& loop);

  /// Whether requests reach the medium; those of a drive that is inactive fail with EPERM. Any
  /// thread; drives are active at first.
  bool active() const noexcept { return active_.load(std::memory_order_relaxed); }
  void set_active(bool on) noexcept { active_.store(on, std::memory_order_relaxed); }
  /// Whether the guest must flush for what it wrote to be durable. Any thread.
  bool write_cache() const noexcept { return write_cache_.load(std::memory_order_relaxed); }
  void set_write_cache(bool on) noexcept { write_cache_.store(on, std::memory_order_relaxed); }
  /// Whether the guest forbids to open the tray. Any thread.
  bool tray_locked() const noexcept { return tray_locked_.load(std::memory_order_relaxed); }
  void set_tray_locked(bool on) noexcept { tray_locked_.store(on, std::memory_order_relaxed); }

  /// A request failed with `error` on the host: what to do now, kReport, kIgnore or kStop. Counted,
  /// and told to the outside. Any thread.
  OnError Failed(Operation operation, int error);
  /// A request is done. Any thread.
  void Account(Operation operation, std::uint64_t bytes,
               std::chrono::steady_clock::time_point since, int error) noexcept;
  DriveStats& stats() noexcept { return stats_; }

  OnError on_read_error = OnError::kReport;   ///< set before the device is made
  OnError on_write_error = OnError::kEnospc;  ///< likewise
  DetectZeroes detect_zeroes = DetectZeroes::kOff;
  bool automatic = false;  ///< if= plugs it in; a -device may not

  /// Never null; without limits by default. A throttle-group is shared.
  const std::shared_ptr<object::Throttle>& throttle() const noexcept { return throttle_; }
  void set_throttle(std::shared_ptr<object::Throttle> throttle, std::string group);
  const std::string& throttle_group() const noexcept { return throttle_group_; }

 private:
  const std::string id_;
  BlockDevice* medium_;
  const ErrorSink errors_;
  std::optional<DriveUser> user_;
  std::uint32_t block_size_ = 512;  // the user's
  std::atomic<bool> active_ = true;
  std::atomic<bool> write_cache_ = true;
  std::atomic<bool> tray_locked_ = false;
  std::shared_ptr<object::Throttle> throttle_;
  std::string throttle_group_;
  DriveStats stats_;
};

}  // namespace holdfast::devices::block
