// SPDX-License-Identifier: Apache-2.0
#include "devices/i6300esb.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "devices/machine_services.h"

namespace holdfast::devices {
namespace {

// Configuration space.
constexpr std::uint16_t kConfigRegister = 0x60;
constexpr std::uint32_t kInterruptType = 0x03;
constexpr std::uint32_t kFast = 1 << 2;
constexpr std::uint32_t kNoReboot = 1 << 5;
constexpr std::uint16_t kLockRegister = 0x68;
constexpr std::uint32_t kLock = 1 << 0;
constexpr std::uint32_t kEnable = 1 << 1;
constexpr std::uint32_t kFreeRun = 1 << 2;

// Memory space.
constexpr std::uint64_t kSize = 16;
constexpr std::uint64_t kTimer1 = 0x00;
constexpr std::uint64_t kTimer2 = 0x04;
constexpr std::uint64_t kReload = 0x0c;
constexpr std::uint32_t kUnlock1 = 0x80;
constexpr std::uint32_t kUnlock2 = 0x86;
constexpr std::uint32_t kDoReload = 1 << 8;
constexpr std::uint32_t kTimedOut = 1 << 9;
constexpr std::uint32_t kExpiredValue = 0x1200;  // timed out, and the reboot that followed
constexpr std::uint32_t kPreloadMask = 0xfffff;

// The counter is the upper 20 bits of one that counts PCI clocks: 35 bits at 1 kHz, 25 at 1 MHz.
constexpr std::uint64_t kPciClockNs = 30;
constexpr unsigned kSlowShift = 15;
constexpr unsigned kFastShift = 5;

}  // namespace

I6300Esb::I6300Esb(pci::PciServices& services, EventLoop& loop, std::function<void()> expired)
    : Function(services, {.vendor = 0x8086, .device = 0x25ab, .class_code = 0x088000}),
      expired_(std::move(expired)),
      timer_(std::make_shared<Timer>(Timer{loop, this, std::nullopt})) {
  AddBar(0, pci::BarKind::kMemory32, kSize);
  PresetConfig(kConfigRegister, 2, 0, kInterruptType | kFast | kNoReboot);
  // Once locked it stays as it is, so that the bits are judged when they are written.
  PresetConfig(kLockRegister, 1, 0, kLock | kEnable | kFreeRun);
  const MutexLock lock(mutex_);
  PowerOn();
}

I6300Esb::~I6300Esb() {
  timer_->device = nullptr;
  if (timer_->id) timer_->loop.CancelTimer(*timer_->id);
}

void I6300Esb::PowerOn() {
  preload_[0] = preload_[1] = kPreloadMask;
  stage_ = 1;
  unlock_ = Unlock::kLocked;
  enabled_ = locked_ = free_run_ = fast_ = false;
  reboots_ = true;
  deadline_.reset();
  left_.reset();
}

void I6300Esb::SetRunning(bool running) noexcept {
  {
    const MutexLock lock(mutex_);
    const Clock::time_point now = Clock::now();
    if (running) {
      if (left_) deadline_ = now + *std::exchange(left_, std::nullopt);
    } else if (deadline_) {
      left_ = std::max(*std::exchange(deadline_, std::nullopt) - now, Clock::duration::zero());
    }
  }
  Rearm();
}

void I6300Esb::VisitState(state::Fields& fields) {
  constexpr std::uint64_t kLongest = 3'600'000'000'000;  // 35 bits of PCI clocks, in ns, and more
  Function::VisitState(fields);
  const MutexLock lock(mutex_);
  std::uint32_t preload[2] = {preload_[0], preload_[1]};
  unsigned stage = stage_;
  Unlock unlock = unlock_;
  bool enabled = enabled_;
  bool locked = locked_;
  bool free_run = free_run_;
  bool reboots = reboots_;
  bool fast = fast_;
  bool has_expired = has_expired_;
  bool counts = left_.has_value();
  auto left = counts ? static_cast<std::uint64_t>(std::chrono::nanoseconds(*left_).count()) : 0;
  fields.Value("preload1", preload[0]);
  fields.Value("preload2", preload[1]);
  fields.Value("stage", stage);
  fields.Enum("unlock", unlock, Unlock::kOpen);
  fields.Value("enabled", enabled);
  fields.Value("locked", locked);
  fields.Value("free-run", free_run);
  fields.Value("reboots", reboots);
  fields.Value("fast", fast);
  fields.Value("has-expired", has_expired);
  fields.Value("counts", counts);
  fields.Value("nanoseconds-left", left);
  fields.Check(preload[0] <= kPreloadMask && preload[1] <= kPreloadMask,
               "a preload value is too large");
  fields.Check(stage == 1 || stage == 2, "there are two stages");
  fields.Check(left <= kLongest, "more time is left than a stage has");
  if (!fields.loading() || !fields.ok()) return;
  preload_[0] = preload[0];
  preload_[1] = preload[1];
  stage_ = stage;
  unlock_ = unlock;
  enabled_ = enabled;
  locked_ = locked;
  free_run_ = free_run;
  reboots_ = reboots;
  fast_ = fast;
  has_expired_ = has_expired;
  deadline_.reset();
  left_ = counts ? std::optional<Clock::duration>(std::chrono::nanoseconds(left)) : std::nullopt;
}

void I6300Esb::Reset() noexcept {
  Function::Reset();
  {
    const MutexLock lock(mutex_);
    PowerOn();
  }
  Rearm();
}

std::optional<I6300Esb::Clock::time_point> I6300Esb::deadline() const noexcept {
  const MutexLock lock(mutex_);
  return deadline_;
}

void I6300Esb::ConfigWritten(std::uint16_t offset, unsigned size) noexcept {
  const auto covers = [&](std::uint16_t at) { return at >= offset && at < offset + size; };
  if (covers(kConfigRegister)) {
    const std::uint32_t value = PeekConfig(kConfigRegister, 2);
    const MutexLock lock(mutex_);
    reboots_ = (value & kNoReboot) == 0;
    fast_ = (value & kFast) != 0;
  }
  if (!covers(kLockRegister)) return;
  const std::uint32_t value = PeekConfig(kLockRegister, 1);
  std::uint32_t now = 0;
  {
    const MutexLock lock(mutex_);
    if (!locked_) {
      locked_ = (value & kLock) != 0;
      free_run_ = (value & kFreeRun) != 0;
      const bool was = std::exchange(enabled_, (value & kEnable) != 0);
      if (enabled_ && !was) StartStage(1);
      if (!enabled_) deadline_.reset();
    }
    now = (locked_ ? kLock : 0) | (enabled_ ? kEnable : 0) | (free_run_ ? kFreeRun : 0);
  }
  PokeConfig(kLockRegister, 1, now);
  Rearm();
}

void I6300Esb::ReadBar(unsigned, std::uint64_t offset, std::span<std::byte> data) noexcept {
  std::ranges::fill(data, std::byte{0});
  const MutexLock lock(mutex_);
  if (offset != kReload || data.size() < 2 || !has_expired_) return;
  data[0] = static_cast<std::byte>(kExpiredValue & 0xff);
  data[1] = static_cast<std::byte>(kExpiredValue >> 8);
}

void I6300Esb::WriteBar(unsigned, std::uint64_t offset, std::span<const std::byte> data) noexcept {
  std::uint32_t value = 0;
  if (data.size() > sizeof value) return;
  std::memcpy(&value, data.data(), data.size());
  {
    const MutexLock lock(mutex_);
    if (offset == kReload && value == kUnlock1) {
      unlock_ = Unlock::kFirst;
      return;
    }
    if (offset == kReload && value == kUnlock2 && unlock_ == Unlock::kFirst) {
      unlock_ = Unlock::kOpen;
      return;
    }
    if (std::exchange(unlock_, Unlock::kLocked) != Unlock::kOpen) return;
    WriteRegister(offset, value);
  }
  Rearm();
}

void I6300Esb::WriteRegister(std::uint64_t offset, std::uint32_t value) {
  if (offset == kTimer1) preload_[0] = value & kPreloadMask;
  if (offset == kTimer2) preload_[1] = value & kPreloadMask;
  if (offset != kReload) return;
  if ((value & kTimedOut) != 0) has_expired_ = false;
  if ((value & kDoReload) != 0) StartStage(1);
}

void I6300Esb::StartStage(unsigned stage) {
  stage_ = stage;
  if (!enabled_) return;
  const std::uint64_t clocks = std::uint64_t{preload_[stage - 1]}
                               << (fast_ ? kFastShift : kSlowShift);
  deadline_ = Clock::now() + std::chrono::nanoseconds(clocks * kPciClockNs);
}

// Timers are the loop's, and this may be a vCPU's thread.
void I6300Esb::Rearm() {
  timer_->loop.Post([timer = timer_] {
    if (timer->device == nullptr) return;
    if (timer->id) timer->loop.CancelTimer(*timer->id);
    timer->device->OnTimer();
  });
}

void I6300Esb::OnTimer() {
  timer_->id.reset();
  bool expires = false;
  std::optional<Clock::time_point> next;
  {
    const MutexLock lock(mutex_);
    if (deadline_ && *deadline_ <= Clock::now()) {
      if (stage_ == 1) {
        StartStage(2);
      } else {
        expires = reboots_;
        has_expired_ = has_expired_ || expires;
        deadline_.reset();
        if (!expires && free_run_) StartStage(1);
      }
    }
    if (expires) PowerOn();
    next = deadline_;
  }
  if (next) {
    timer_->id = timer_->loop.AddTimer(*next, [this] { OnTimer(); });
  }
  if (expires && expired_) expired_();
}

constexpr DeviceModel kI6300Esb = {
    .name = "i6300esb",
    .description = "Intel 6300ESB watchdog",
    .properties = [] { return std::vector<object::PropertyInfo>{}; },
    .check = [](const object::KeyValues& values) -> Status {
      if (values.empty()) return {};
      return Fail(Errc::kInvalidArgument,
                  fmt::format("Property 'i6300esb.{}' not found", values.front().key),
                  "It has only what every PCI device has; -action watchdog= says what it does.");
    },
    .create = [](const DeviceEnvironment& environment, std::string_view,
                 const object::KeyValues&) -> Result<std::unique_ptr<pci::Function>> {
      return std::make_unique<I6300Esb>(environment.pci, environment.loop,
                                        [services = environment.services] {
                                          if (services != nullptr && services->watchdog) {
                                            services->watchdog();
                                          }
                                        });
    },
};

}  // namespace holdfast::devices
