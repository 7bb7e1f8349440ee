// SPDX-License-Identifier: Apache-2.0
#include "devices/rtc.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <limits>
#include <optional>
#include <utility>

#include <holdfast/units.h>

#include "base/event_loop.h"
#include "devices/rtc_regs.h"

namespace holdfast::devices {

using namespace rtc;  // NOLINT(google-build-using-namespace): the registers

namespace {

constexpr std::int64_t kNsPerSecond = 1'000'000'000;
constexpr std::int64_t kSecondsPerDay = 86'400;
constexpr std::int64_t kUpdateNs = 244'000;  // UIP comes this long before the update
constexpr std::int64_t kNever = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kOscillatorHz = 32'768;
constexpr std::int64_t kMaxOffsetNs = 6'000'000'000 * kNsPerSecond;  // 190 years
// What a clock that is loaded may show: more than a guest can set, and years from what fits.
constexpr std::int64_t kFirstTime = -3'000'000'000 * kNsPerSecond;  // 1874
constexpr std::int64_t kLastTime = 8'900'000'000 * kNsPerSecond;    // 2252

std::int64_t RealtimeNs() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return now.tv_sec * kNsPerSecond + now.tv_nsec;
}

constexpr std::int64_t FloorDiv(std::int64_t a, std::int64_t b) {
  return a / b - (a % b < 0 ? 1 : 0);
}

// Periods of the oscillator between two periodic interrupts; 0: none.
std::int64_t PeriodTicks(std::uint8_t register_a) {
  const unsigned rate = register_a & kARateMask;
  if (rate == 0) return 0;
  // With a 32.768 kHz crystal rates 1 and 2 are those of 8 and 9.
  return std::int64_t{1} << ((rate <= 2 ? rate + 7 : rate) - 1);
}

bool IsTimeCell(std::uint8_t index) {
  return index == kSeconds || index == kMinutes || index == kHours ||
         (index >= kWeekday && index <= kYear) || index == kCentury || index == kCenturyPs2;
}

void PutCell16(std::array<std::uint8_t, 128>& cells, std::uint8_t index, std::uint64_t value) {
  const auto capped = static_cast<std::uint16_t>(std::min<std::uint64_t>(value, 0xffff));
  cells.at(index) = static_cast<std::uint8_t>(capped);
  cells.at(index + 1U) = static_cast<std::uint8_t>(capped >> 8);
}

}  // namespace

struct Rtc::Alarm {
  EventLoop& loop;
  Rtc* rtc;  // null once it is gone; the loop's thread only, like the timer
  std::optional<EventLoop::TimerId> timer;
};

Rtc::Rtc(EventLoop* loop, InterruptLine& irq, const CmosConfig& config, Clock clock)
    : irq_(irq),
      clock_(clock ? std::move(clock) : Clock(&RealtimeNs)),
      flags_until_(clock_()),
      alarm_(loop != nullptr ? std::make_shared<Alarm>(Alarm{*loop, this, std::nullopt})
                             : nullptr) {
  auto& cells = state_.cells;
  cells[kA] = kADefault;
  cells[kB] = kB24Hours;
  cells[kEquipment] = kEquipmentFpu;
  const std::uint64_t low = config.ram_below_4g;
  PutCell16(cells, kBaseMemory, std::min<std::uint64_t>(low / kKiB, 640));
  PutCell16(cells, kExtendedMemory, low > kMiB ? (low - kMiB) / kKiB : 0);
  PutCell16(cells, kExtendedMemory2, low > kMiB ? (low - kMiB) / kKiB : 0);
  PutCell16(cells, kMemoryAbove16M, low > 16 * kMiB ? (low - 16 * kMiB) / (64 * kKiB) : 0);
  const std::uint64_t high = std::min<std::uint64_t>(config.ram_above_4g / (64 * kKiB), 0xffffff);
  for (unsigned i = 0; i < 3; ++i)
    cells.at(kMemoryAbove4G + i) = static_cast<std::uint8_t>(high >> (8 * i));
  cells[kCpusMinusOne] = static_cast<std::uint8_t>(std::clamp(config.cpus, 1U, 256U) - 1);
}

Rtc::~Rtc() {
  if (!alarm_) return;
  alarm_->rtc = nullptr;
  if (alarm_->timer) alarm_->loop.CancelTimer(*alarm_->timer);
}

void Rtc::Read(std::uint64_t offset, std::span<std::byte> data) noexcept {
  std::ranges::fill(data, std::byte{0xff});  // the index cannot be read
  // A 16-bit read at 0x70 meets the data port with its second byte.
  if (offset > 1 || data.size() + offset < 2) return;
  const MutexLock lock(mutex_);
  data[1 - offset] = std::byte{ReadCell(state_.index)};
}

void Rtc::Write(std::uint64_t offset, std::span<const std::byte> data) noexcept {
  const MutexLock lock(mutex_);
  for (const std::byte byte : data) {
    const auto value = std::to_integer<std::uint8_t>(byte);
    if (offset == 0) state_.index = value & 0x7f;
    if (offset == 1) WriteCell(state_.index, value);
    ++offset;
  }
}

std::int64_t Rtc::Now() const {
  return clock_() + state_.offset_ns;
}

// Whether time stands because the guest is setting it.
bool Rtc::Standing() const {
  return (state_.cells[kB] & kBSet) != 0 || (state_.cells[kA] & kADividerReset) == kADividerReset;
}

std::uint8_t Rtc::Encode(unsigned value) const {
  if ((state_.cells[kB] & kBBinary) != 0) return static_cast<std::uint8_t>(value);
  return static_cast<std::uint8_t>(((value / 10) << 4) | (value % 10));
}

unsigned Rtc::Decode(std::uint8_t value) const {
  if ((state_.cells[kB] & kBBinary) != 0) return value;
  return (value >> 4) * 10U + (value & 0x0fU);
}

std::uint8_t Rtc::EncodeHour(unsigned hour) const {
  if ((state_.cells[kB] & kB24Hours) != 0) return Encode(hour);
  const std::uint8_t twelve = Encode(hour % 12 == 0 ? 12 : hour % 12);
  return hour >= 12 ? twelve | kHourPm : twelve;
}

unsigned Rtc::DecodeHour(std::uint8_t value) const {
  if ((state_.cells[kB] & kB24Hours) != 0) return Decode(value);
  const unsigned hour = Decode(value & 0x7f) % 12;
  return (value & kHourPm) != 0 ? hour + 12 : hour;
}

// Writes the time `now` into the cells.
void Rtc::LoadTime(std::int64_t now) {
  using namespace std::chrono;  // NOLINT(google-build-using-namespace): calendar arithmetic
  const sys_seconds time{seconds{FloorDiv(now, kNsPerSecond)}};
  const sys_days day = floor<days>(time);
  const year_month_day date{day};
  const hh_mm_ss clock{time - day};
  const int full_year = std::clamp(static_cast<int>(date.year()), 0, 9999);

  auto& cells = state_.cells;
  cells[kSeconds] = Encode(static_cast<unsigned>(clock.seconds().count()));
  cells[kMinutes] = Encode(static_cast<unsigned>(clock.minutes().count()));
  cells[kHours] = EncodeHour(static_cast<unsigned>(clock.hours().count()));
  cells[kWeekday] = Encode(weekday{day}.c_encoding() + 1);
  cells[kDay] = Encode(static_cast<unsigned>(date.day()));
  cells[kMonth] = Encode(static_cast<unsigned>(date.month()));
  cells[kYear] = Encode(static_cast<unsigned>(full_year % 100));
  cells[kCentury] = Encode(static_cast<unsigned>(full_year / 100));
  cells[kCenturyPs2] = cells[kCentury];
}

// Makes the cells' time the present time.
void Rtc::StoreTime() {
  using namespace std::chrono;  // NOLINT(google-build-using-namespace): calendar arithmetic
  const auto& cells = state_.cells;
  const unsigned full_year = Decode(cells[kCentury]) * 100 + Decode(cells[kYear]);
  const year_month_day date{year{static_cast<int>(full_year)}, month{Decode(cells[kMonth])},
                            day{Decode(cells[kDay])}};
  // What is no date (a guest may write anything) leaves the clock as it was.
  const unsigned hour = DecodeHour(cells[kHours]);
  const unsigned minute = Decode(cells[kMinutes]);
  const unsigned second = Decode(cells[kSeconds]);
  // The nanosecond count ends in 2262; years far from it keep all sums below in range.
  if (!date.ok() || full_year < 1900 || full_year > 2199 || hour > 23 || minute > 59 || second > 59)
    return;
  const auto since_1970 =
      sys_days{date}.time_since_epoch() + hours{hour} + minutes{minute} + seconds{second};
  state_.offset_ns = duration_cast<seconds>(since_1970).count() * kNsPerSecond - clock_();
  flags_until_ = Now();
  if (time_changed_) time_changed_(FloorDiv(state_.offset_ns + kNsPerSecond / 2, kNsPerSecond));
}

std::uint8_t Rtc::ReadCell(std::uint8_t index) {
  auto& cells = state_.cells;
  if (IsTimeCell(index)) {
    if (!Standing()) LoadTime(Now());
    return cells.at(index);
  }
  switch (index) {
    case kA: {
      const std::int64_t now = Now();
      const std::int64_t into_second = now - FloorDiv(now, kNsPerSecond) * kNsPerSecond;
      const bool updating = !Standing() && into_second >= kNsPerSecond - kUpdateNs;
      return updating ? cells[kA] | kAUpdating : cells[kA];
    }
    case kC: {
      Advance();
      const std::uint8_t flags = std::exchange(cells[kC], std::uint8_t{0});
      UpdateInterrupt();
      Rearm();
      return flags;
    }
    case kD:
      return kDValid;
    default:
      return cells.at(index);
  }
}

void Rtc::WriteCell(std::uint8_t index, std::uint8_t value) {
  auto& cells = state_.cells;
  if (IsTimeCell(index)) {
    // A single cell may be set on the run too; the others keep going.
    if (!Standing()) LoadTime(Now());
    cells.at(index) = value;
    if (index == kCentury) cells[kCenturyPs2] = value;
    if (index == kCenturyPs2) cells[kCentury] = value;
    if (!Standing()) StoreTime();
    Rearm();
    return;
  }
  switch (index) {
    case kA:
    case kB: {
      Advance();
      const bool stood = Standing();
      // The cells must hold the time the clock stops at; B may also change how they write it.
      if (!stood) LoadTime(Now());
      if (index == kA) {
        cells[kA] = value & static_cast<std::uint8_t>(~kAUpdating);
      } else {
        // SET ends a pending update, says the data sheet.
        cells[kB] = (value & kBSet) != 0 ? value & static_cast<std::uint8_t>(~kBUpdate) : value;
      }
      if (stood && !Standing()) StoreTime();
      UpdateInterrupt();
      Rearm();
      break;
    }
    case kC:
    case kD:
      break;  // read-only
    default:
      Advance();
      cells.at(index) = value;
      if (index <= kHoursAlarm) Rearm();
      break;
  }
}

// The first moment after `after` at which the alarm's cells match; kNever if they match no time.
std::int64_t Rtc::NextAlarm(std::int64_t after) const {
  const auto& cells = state_.cells;
  const auto matches = [](std::uint8_t cell, unsigned alarm, unsigned value) {
    return (cell & kAlarmAny) == kAlarmAny || alarm == value;
  };
  const unsigned hour_alarm = DecodeHour(cells[kHoursAlarm]);
  const unsigned minute_alarm = Decode(cells[kMinutesAlarm]);
  const unsigned second_alarm = Decode(cells[kSecondsAlarm]);
  const std::int64_t first = FloorDiv(after, kNsPerSecond) + 1;
  const std::int64_t day = FloorDiv(first, kSecondsPerDay);
  for (const std::int64_t midnight : {day * kSecondsPerDay, (day + 1) * kSecondsPerDay}) {
    for (unsigned hour = 0; hour < 24; ++hour) {
      const std::int64_t hour_start = midnight + std::int64_t{hour} * 3600;
      if (hour_start + 3600 <= first || !matches(cells[kHoursAlarm], hour_alarm, hour)) continue;
      for (unsigned minute = 0; minute < 60; ++minute) {
        const std::int64_t minute_start = hour_start + std::int64_t{minute} * 60;
        if (minute_start + 60 <= first || !matches(cells[kMinutesAlarm], minute_alarm, minute))
          continue;
        for (unsigned second = 0; second < 60; ++second) {
          const std::int64_t candidate = minute_start + second;
          if (candidate >= first && matches(cells[kSecondsAlarm], second_alarm, second))
            return candidate * kNsPerSecond;
        }
      }
    }
  }
  return kNever;
}

// The first periodic tick after `after`; kNever if there is none.
std::int64_t Rtc::NextTick(std::int64_t after) const {
  const std::int64_t ticks = PeriodTicks(state_.cells[kA]);
  if (ticks == 0) return kNever;
  // All periods divide a second, so ticks are counted from its start.
  const std::int64_t second = FloorDiv(after, kNsPerSecond) * kNsPerSecond;
  const std::int64_t per_second = kOscillatorHz / ticks;  // 2 to 8192
  const std::int64_t done = (after - second) * per_second / kNsPerSecond;
  return second + ((done + 1) * kNsPerSecond + per_second - 1) / per_second;
}

// Sets the flags for what has happened since the last look.
void Rtc::Advance() {
  const std::int64_t now = Now();
  const std::int64_t since = std::exchange(flags_until_, now);
  if (now <= since) return;  // the host's clock was set back
  auto& flags = state_.cells[kC];
  if (NextTick(since) <= now) flags |= kBPeriodic;
  if (Standing()) return;
  if (FloorDiv(now, kNsPerSecond) != FloorDiv(since, kNsPerSecond)) flags |= kBUpdate;
  if (NextAlarm(since) <= now) flags |= kBAlarm;
}

void Rtc::UpdateInterrupt() {
  auto& cells = state_.cells;
  const bool level = (cells[kB] & cells[kC] & kBInterrupts) != 0;
  if (level) {
    cells[kC] |= kCInterrupt;
  } else {
    cells[kC] &= static_cast<std::uint8_t>(~kCInterrupt);
  }
  if (level == level_) return;
  level_ = level;
  irq_.Set(level);
}

// Has the loop look again at the next moment something enabled happens. While the interrupt is
// pending nothing can be added to it, so reading C is what starts the next timer.
void Rtc::Rearm() {
  if (!alarm_) return;
  const std::uint8_t enabled = state_.cells[kB] & kBInterrupts;
  std::int64_t next = kNever;
  if (!level_) {
    const std::int64_t from = flags_until_;
    if ((enabled & kBPeriodic) != 0) next = std::min(next, NextTick(from));
    if (!Standing()) {
      if ((enabled & kBUpdate) != 0)
        next = std::min(next, (FloorDiv(from, kNsPerSecond) + 1) * kNsPerSecond);
      if ((enabled & kBAlarm) != 0) next = std::min(next, NextAlarm(from));
    }
  }
  if (next == kNever && !armed_) return;
  armed_ = next != kNever;
  const auto now = EventLoop::Clock::now();
  const std::int64_t wait = next == kNever ? 0 : std::max<std::int64_t>(next - Now(), 0);
  alarm_->loop.Post([alarm = alarm_, armed = armed_, when = now + std::chrono::nanoseconds(wait)] {
    if (alarm->timer) alarm->loop.CancelTimer(*alarm->timer);
    alarm->timer.reset();
    if (!armed || alarm->rtc == nullptr) return;
    alarm->timer = alarm->loop.AddTimer(when, [alarm] {
      alarm->timer.reset();
      alarm->rtc->OnTimer();
    });
  });
}

void Rtc::OnTimer() {
  const MutexLock lock(mutex_);
  Advance();
  UpdateInterrupt();
  Rearm();
}

void Rtc::Reset() noexcept {
  const MutexLock lock(mutex_);
  state_.index = 0;
  state_.cells[kB] &= static_cast<std::uint8_t>(~(kBInterrupts | kBSquareWave | kBSet));
  state_.cells[kA] = kADefault;
  state_.cells[kC] = 0;
  flags_until_ = Now();
  UpdateInterrupt();
  Rearm();
}

void Rtc::VisitState(state::Fields& fields) {
  const MutexLock lock(mutex_);
  // What has happened up to now is in the flags, so that nothing between two looks is lost.
  Advance();
  UpdateInterrupt();
  State state = state_;
  const std::int64_t clock = clock_();
  const std::int64_t host_now = host_time_ ? host_time_() : 0;
  std::int64_t time = clock + state.offset_ns;
  std::int64_t host_time = host_now;
  fields.Value("index", state.index);
  fields.Struct("cells", state.cells);
  fields.Value("time", time);
  fields.Value("host-time", host_time);
  if (!fields.loading() || !fields.ok()) return;
  // One that was saved without host time has none to catch up with; nor do clocks go back.
  std::int64_t passed = 0;
  if (host_time > 0 && host_time < host_now) passed = host_now - host_time;
  std::int64_t now = 0;
  const bool fits = !__builtin_add_overflow(time, passed, &now) && now >= kFirstTime &&
                    now <= kLastTime && !__builtin_sub_overflow(now, clock, &state.offset_ns);
  fields.Check(fits, "the clock's time is out of range");
  if (!fields.ok()) return;
  Take(state);
  // An alarm that was due meanwhile comes from the loop, with all else in place.
  flags_until_ = time;
  Rearm();
}

Rtc::State Rtc::Save() const {
  const MutexLock lock(mutex_);
  return state_;
}

void Rtc::Restore(const State& state) {
  const MutexLock lock(mutex_);
  Take(state);
}

void Rtc::Take(const State& state) {
  state_ = state;
  state_.index &= 0x7f;
  state_.offset_ns = std::clamp(state_.offset_ns, -kMaxOffsetNs, kMaxOffsetNs);
  flags_until_ = Now();
  UpdateInterrupt();
  Rearm();
}

}  // namespace holdfast::devices
