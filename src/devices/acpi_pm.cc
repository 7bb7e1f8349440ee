// SPDX-License-Identifier: Apache-2.0
#include "devices/acpi_pm.h"

#include <algorithm>
#include <ctime>
#include <utility>

namespace holdfast::devices {

using namespace acpi;  // NOLINT(google-build-using-namespace): the registers

namespace {

// Offsets of the ranges outside the PM block, as MapOn() gives them to the bus.
constexpr std::uint64_t kSmiCommandOffset = 0x100;
constexpr std::uint64_t kSmiStatusOffset = 0x101;
constexpr std::uint64_t kResetOffset = 0x102;

constexpr std::uint64_t kGpe0Enable = kGpe0 + kGpe0Length / 2;
constexpr std::uint64_t kGpe0End = kGpe0 + kGpe0Length;

std::uint64_t MonotonicNs() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

// Ticks of the PM timer in `ns`, modulo 2^32; in two steps because the product needs 86 bits.
std::uint32_t TicksOf(std::uint64_t ns) {
  constexpr std::uint64_t kNsPerSecond = 1'000'000'000;
  return static_cast<std::uint32_t>(ns / kNsPerSecond * kPmTimerHz +
                                    ns % kNsPerSecond * kPmTimerHz / kNsPerSecond);
}

std::uint8_t ByteOf(std::uint64_t value, std::uint64_t index) {
  return static_cast<std::uint8_t>(value >> (8 * index));
}

// `value` with byte `index` replaced.
std::uint16_t WithByte(std::uint16_t value, std::uint64_t index, std::uint8_t byte) {
  const unsigned shift = static_cast<unsigned>(index) * 8;
  return static_cast<std::uint16_t>((value & ~(0xffU << shift)) | (unsigned{byte} << shift));
}

}  // namespace

AcpiPm::AcpiPm(InterruptLine& sci, Callbacks callbacks, Clock clock)
    : sci_(sci),
      callbacks_(std::move(callbacks)),
      clock_(clock ? std::move(clock) : Clock(&MonotonicNs)),
      timer_offset_(0U - TicksOf(clock_())) {}

Status AcpiPm::MapOn(Bus& io) {
  HF_TRY_STATUS(io.Map(kPmBase, kPmSize, *this));
  HF_TRY_STATUS(io.Map(kSmiCommandPort, 2, *this, kSmiCommandOffset));
  return io.Map(kResetPort, 1, *this, kResetOffset);
}

std::uint32_t AcpiPm::Timer() const {
  return TicksOf(clock_()) + timer_offset_;
}

void AcpiPm::Read(std::uint64_t offset, std::span<std::byte> data) noexcept {
  const MutexLock lock(mutex_);
  // Once for all bytes: a timer that moves between two bytes of one read would jump.
  const std::uint32_t timer = Timer();
  for (std::byte& byte : data) byte = std::byte{ReadByte(offset++, timer)};
}

std::uint8_t AcpiPm::ReadByte(std::uint64_t offset, std::uint32_t timer) const {
  if (offset < kPm1Enable) return ByteOf(state_.pm1_status, offset - kPm1Status);
  if (offset < kPm1Control) return ByteOf(state_.pm1_enable, offset - kPm1Enable);
  if (offset < kPm1Control + 2) return ByteOf(state_.pm1_control, offset - kPm1Control);
  if (offset < kPm1Control + 4) return 0;  // a 32-bit read of PM1 control
  if (offset < kPmTimer + kPmTimerLength) return ByteOf(timer, offset - kPmTimer);
  if (offset >= kGpe0 && offset < kGpe0Enable) return state_.gpe0_status.at(offset - kGpe0);
  if (offset >= kGpe0Enable && offset < kGpe0End)
    return state_.gpe0_enable.at(offset - kGpe0Enable);
  switch (offset) {
    case kSmiCommandOffset:
      return state_.smi_command;
    case kSmiStatusOffset:
      return state_.smi_status;
    case kResetOffset:
      return state_.reset_control;
    default:
      return 0xff;
  }
}

void AcpiPm::Write(std::uint64_t offset, std::span<const std::byte> data) noexcept {
  Action action = Action::kNone;
  {
    const MutexLock lock(mutex_);
    for (const std::byte byte : data) {
      const Action wanted = WriteByte(offset++, std::to_integer<std::uint8_t>(byte));
      if (wanted != Action::kNone) action = wanted;
    }
    UpdateSci();
  }
  if (action == Action::kReset && callbacks_.reset) callbacks_.reset();
  if (action == Action::kShutdown && callbacks_.shutdown) callbacks_.shutdown();
}

AcpiPm::Action AcpiPm::WriteByte(std::uint64_t offset, std::uint8_t value) {
  if (offset < kPm1Enable) {  // a written 1 clears
    const unsigned shift = static_cast<unsigned>(offset - kPm1Status) * 8;
    state_.pm1_status = static_cast<std::uint16_t>(state_.pm1_status & ~(unsigned{value} << shift));
    return Action::kNone;
  }
  if (offset < kPm1Control) {
    state_.pm1_enable = WithByte(state_.pm1_enable, offset - kPm1Enable, value);
    return Action::kNone;
  }
  if (offset < kPm1Control + 2)
    return WriteControl(WithByte(state_.pm1_control, offset - kPm1Control, value));
  if (offset >= kGpe0 && offset < kGpe0Enable) {  // a written 1 clears
    std::uint8_t& status = state_.gpe0_status.at(offset - kGpe0);
    status = static_cast<std::uint8_t>(status & ~value);
    return Action::kNone;
  }
  if (offset >= kGpe0Enable && offset < kGpe0End) {
    state_.gpe0_enable.at(offset - kGpe0Enable) = value;
    return Action::kNone;
  }
  switch (offset) {
    case kSmiCommandOffset:
      state_.smi_command = value;
      if (value == kAcpiEnable) state_.pm1_control |= kPm1SciEnable;
      if (value == kAcpiDisable)
        state_.pm1_control = static_cast<std::uint16_t>(state_.pm1_control & ~kPm1SciEnable);
      return Action::kNone;
    case kSmiStatusOffset:
      state_.smi_status = value;
      return Action::kNone;
    case kResetOffset:
      // Any reset is a full one; kResetSystem only tells a hard one from a soft one.
      if ((value & kResetCpu) != 0) return Action::kReset;
      state_.reset_control = value & (kResetSystem | 0x08);
      return Action::kNone;
    default:
      return Action::kNone;
  }
}

AcpiPm::Action AcpiPm::WriteControl(std::uint16_t value) {
  // SLP_EN is an order, not a state: it reads as zero.
  state_.pm1_control = static_cast<std::uint16_t>(value & ~kPm1SleepEnable);
  const unsigned type = (unsigned{value} >> kPm1SleepTypeShift) & kPm1SleepTypeMask;
  return (value & kPm1SleepEnable) != 0 && type == kSleepTypeS5 ? Action::kShutdown : Action::kNone;
}

void AcpiPm::UpdateSci() {
  bool event = (state_.pm1_status & state_.pm1_enable) != 0;
  for (std::size_t i = 0; i < state_.gpe0_status.size(); ++i)
    event = event || (state_.gpe0_status.at(i) & state_.gpe0_enable.at(i)) != 0;
  const bool level = (state_.pm1_control & kPm1SciEnable) != 0 && event;
  if (level == level_) return;
  level_ = level;
  sci_.Set(level);
}

void AcpiPm::PressPowerButton() noexcept {
  const MutexLock lock(mutex_);
  state_.pm1_status |= kPm1PowerButton;
  UpdateSci();
}

void AcpiPm::Raise(unsigned event) noexcept {
  const MutexLock lock(mutex_);
  if (event / 8 >= state_.gpe0_status.size()) return;
  state_.gpe0_status.at(event / 8) |= static_cast<std::uint8_t>(1U << (event % 8));
  UpdateSci();
}

void AcpiPm::Reset() noexcept {
  const MutexLock lock(mutex_);
  state_ = State{};
  timer_offset_ = 0U - TicksOf(clock_());
  UpdateSci();
}

void AcpiPm::VisitState(state::Fields& fields) {
  State state = Save();
  fields.Value("pm1-status", state.pm1_status);
  fields.Value("pm1-enable", state.pm1_enable);
  fields.Value("pm1-control", state.pm1_control);
  fields.Struct("gpe0-status", state.gpe0_status);
  fields.Struct("gpe0-enable", state.gpe0_enable);
  fields.Value("smi-command", state.smi_command);
  fields.Value("smi-status", state.smi_status);
  fields.Value("reset-control", state.reset_control);
  fields.Value("timer", state.timer);
  if (fields.loading() && fields.ok()) Restore(state);
}

AcpiPm::State AcpiPm::Save() const {
  const MutexLock lock(mutex_);
  State state = state_;
  state.timer = Timer();
  return state;
}

void AcpiPm::Restore(const State& state) {
  const MutexLock lock(mutex_);
  state_ = state;
  timer_offset_ = state.timer - TicksOf(clock_());
  UpdateSci();
}

}  // namespace holdfast::devices
