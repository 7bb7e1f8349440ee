// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/event_loop.h"
#include "base/thread_annotations.h"
#include "devices/device_model.h"
#include "devices/device_thread.h"
#include "devices/machine_services.h"
#include "devices/virtio/device.h"
#include "devices/virtio/free_page_hints.h"

namespace holdfast::devices::virtio {

/// virtio-balloon (virtio 1.2, 5.5): the guest gives memory back page by page (inflating), as free
/// ranges (reporting), and tells how it is off (statistics). What comes back leaves the memory's fd
/// at once, so that the host has it again.
///
/// A guest may name any of its pages at any time: all it can hurt is its own contents.
///
/// Thread-safety: as Device; Balloon's functions on the main thread.
class VirtioBalloon final : public Device, public Balloon {
 public:
  struct Config {
    bool deflate_on_oom = false;
    bool free_page_hint = false;
    bool free_page_reporting = false;
    bool page_poison = true;
  };
  /// Called on the device's thread when the size has changed, at most once a second; with the last
  /// value in the end.
  using Changed = std::function<void(std::uint64_t actual)>;

  /// `services` outlives the device, which is services.balloon from here on.
  VirtioBalloon(const DeviceThread& thread, std::string_view id, MachineServices& services,
                const Config& config, Changed changed);
  ~VirtioBalloon() override;

  std::uint16_t type() const noexcept override { return 5; }
  std::string_view name() const noexcept override { return "virtio-balloon"; }
  std::uint64_t features() const noexcept override;
  std::span<const std::uint16_t> queue_sizes() const noexcept override;
  EventLoop& loop() const noexcept override { return thread_.loop(); }
  void ReadConfig(std::uint64_t offset, std::span<std::byte> data) noexcept override;
  void WriteConfig(std::uint64_t offset, std::span<const std::byte> data) noexcept override;
  Status Activate(Transport& transport) override;
  void HandleQueue(unsigned index) override;
  void SetRunning(bool running) noexcept override;
  void VisitState(state::Fields& fields) override HF_EXCLUDES(mutex_);
  void Reset() noexcept override;

  void SetTarget(std::uint64_t bytes) override;
  std::uint64_t actual() const noexcept override;
  GuestStats stats() const override;
  std::uint64_t polling_interval() const noexcept override { return polling_seconds_; }
  void SetPollingInterval(std::uint64_t seconds) override;
  Status StartFreePageHinting(FreePages free) override;
  void StopFreePageHinting() override;
  void FinishFreePageHinting() override;
  HintState free_page_hinting() const noexcept override { return hints_.state(); }
  std::string_view id() const noexcept override { return id_; }

 private:
  // The configuration space, little-endian as the host is.
  struct Layout {
    std::uint32_t pages = 0;
    std::uint32_t actual = 0;
    std::uint32_t free_page_hint = 0;  // hints_ has it
    std::uint32_t poison = 0;
  };
  enum class Role : std::uint8_t { kInflate, kDeflate, kStats, kHint, kReport, kNone };

  Role RoleOf(unsigned index) const noexcept;
  /// Takes some requests; whether there may be more.
  bool ServeSome(unsigned index, Role role);
  void Inflate(const Chain& chain);
  void Report(const Chain& chain);
  void TakeStats(Chain chain);
  void AskForStats();
  void StartPolling();
  void Clear() noexcept;
  void TellChange();
  void TellConfig() const noexcept;
  std::uint32_t poison() const noexcept HF_EXCLUDES(mutex_);

  const DeviceThread thread_;
  const std::string id_;
  MachineServices& services_;
  const Config config_;
  const Changed changed_;
  std::vector<std::uint16_t> queue_sizes_;
  std::atomic<Transport*> transport_ = nullptr;  // while active
  // The loop's. Work posted to it holds it weakly, and so knows whether the device is still there.
  std::shared_ptr<int> alive_ = std::make_shared<int>();
  std::uint64_t activation_ = 0;  // counts Activate and Reset
  FreePageHints hints_;

  std::atomic<bool> change_posted_ = false;
  mutable Mutex mutex_;
  Layout layout_ HF_GUARDED_BY(mutex_);
  GuestStats stats_ HF_GUARDED_BY(mutex_);

  std::atomic<std::uint64_t> polling_seconds_ = 0;
  // The loop's.
  std::optional<Chain> stats_buffer_;  // the driver's, until new statistics are wanted
  std::optional<EventLoop::TimerId> polling_;
  std::optional<EventLoop::TimerId> telling_;
  std::uint64_t told_;  // what changed_ was last called with, or the RAM's size
};

/// `virtio-balloon-pci`.
extern const DeviceModel kVirtioBalloonPci;

}  // namespace holdfast::devices::virtio
