// SPDX-License-Identifier: Apache-2.0
#include "devices/i8042.h"

#include <algorithm>
#include <utility>

namespace holdfast::devices {
namespace {

// Offsets of the three ranges, as MapOn() gives them to the bus.
constexpr std::uint64_t kData = 0;
constexpr std::uint64_t kCommand = 4;
constexpr std::uint64_t kSystemControl = 8;

// Controller commands. Spec: IBM PS/2 Hardware Interface Technical Reference, keyboard controller.
constexpr std::uint8_t kReadConfiguration = 0x20;
constexpr std::uint8_t kWriteConfiguration = 0x60;
constexpr std::uint8_t kDisableAux = 0xa7;
constexpr std::uint8_t kEnableAux = 0xa8;
constexpr std::uint8_t kTestAux = 0xa9;
constexpr std::uint8_t kSelfTest = 0xaa;
constexpr std::uint8_t kTestKeyboard = 0xab;
constexpr std::uint8_t kDisableKeyboard = 0xad;
constexpr std::uint8_t kEnableKeyboard = 0xae;
constexpr std::uint8_t kReadInput = 0xc0;
constexpr std::uint8_t kReadOutput = 0xd0;
constexpr std::uint8_t kWriteOutput = 0xd1;
constexpr std::uint8_t kWriteKeyboardBuffer = 0xd2;
constexpr std::uint8_t kWriteAuxBuffer = 0xd3;
constexpr std::uint8_t kWriteAux = 0xd4;
constexpr std::uint8_t kPulseOutput = 0xf0;  // low four bits: pulse the output lines that are 0

constexpr std::uint8_t kSelfTestPassed = 0x55;
constexpr std::uint8_t kPortNotThere = 0x01;    // "clock line stuck low"
constexpr std::uint8_t kOutputNotReset = 0x01;  // output port bit 0, low active
constexpr std::uint8_t kFastReset = 0x01;       // port 0x92 bit 0
constexpr std::uint8_t kConfigKeyboardOff = 0x10;
constexpr std::uint8_t kConfigAuxOff = 0x20;

constexpr std::uint8_t Without(std::uint8_t value, unsigned bits) {
  return static_cast<std::uint8_t>(value & ~bits);
}

}  // namespace

I8042::I8042(std::function<void()> reset) : reset_(std::move(reset)) {}

Status I8042::MapOn(Bus& io) {
  HF_TRY_STATUS(io.Map(kDataPort, 1, *this, kData));
  HF_TRY_STATUS(io.Map(kCommandPort, 1, *this, kCommand));
  return io.Map(kSystemControlPort, 1, *this, kSystemControl);
}

void I8042::Read(std::uint64_t offset, std::span<std::byte> data) noexcept {
  std::ranges::fill(data, std::byte{0xff});
  if (data.empty()) return;
  const MutexLock lock(mutex_);
  switch (offset) {
    case kData:
      // An empty buffer reads as the last byte again, as on hardware.
      data[0] = std::byte{state_.output};
      state_.output_full = false;
      break;
    case kCommand:
      data[0] = std::byte{state_.status} |
                std::byte{state_.output_full ? kStatusOutputFull : std::uint8_t{0}};
      break;
    case kSystemControl:
      data[0] = std::byte{state_.system_control};
      break;
    default:
      break;
  }
}

void I8042::Write(std::uint64_t offset, std::span<const std::byte> data) noexcept {
  if (data.empty()) return;
  const auto value = std::to_integer<std::uint8_t>(data[0]);
  bool reset = false;
  {
    const MutexLock lock(mutex_);
    switch (offset) {
      case kData:
        reset = WriteData(value);
        break;
      case kCommand:
        reset = WriteCommand(value);
        break;
      case kSystemControl:
        // The reset is on the bit's rise; A20 cannot be turned off.
        reset = (value & kFastReset) != 0 && (state_.system_control & kFastReset) == 0;
        state_.system_control = value | kA20;
        break;
      default:
        break;
    }
  }
  if (reset && reset_) reset_();
}

void I8042::Answer(std::uint8_t value) {
  state_.output = value;
  state_.output_full = true;
}

bool I8042::WriteCommand(std::uint8_t value) {
  state_.status |= kStatusCommand;
  state_.command = 0;
  switch (value) {
    case kReadConfiguration:
      Answer(state_.configuration);
      break;
    case kDisableAux:
      state_.configuration |= kConfigAuxOff;
      break;
    case kEnableAux:
      state_.configuration = Without(state_.configuration, kConfigAuxOff);
      break;
    case kSelfTest:
      state_.status |= kStatusSystemFlag;
      Answer(kSelfTestPassed);
      break;
    case kTestAux:
    case kTestKeyboard:
      Answer(kPortNotThere);
      break;
    case kDisableKeyboard:
      state_.configuration |= kConfigKeyboardOff;
      break;
    case kEnableKeyboard:
      state_.configuration = Without(state_.configuration, kConfigKeyboardOff);
      break;
    case kReadInput:
      Answer(0x80);  // keyboard not locked
      break;
    case kReadOutput:
      Answer(kOutputNotReset | kA20 | (state_.output_full ? 0x10 : 0));
      break;
    case kWriteConfiguration:
    case kWriteOutput:
    case kWriteKeyboardBuffer:
    case kWriteAuxBuffer:
    case kWriteAux:
      state_.command = value;
      break;
    default:
      // 0xfe pulses line 0, the reset line; other pulses lead nowhere.
      return (value & 0xf0) == kPulseOutput && (value & kOutputNotReset) == 0;
  }
  return false;
}

bool I8042::WriteData(std::uint8_t value) {
  state_.status = Without(state_.status, kStatusCommand);
  switch (std::exchange(state_.command, std::uint8_t{0})) {
    case kWriteConfiguration:
      state_.configuration = value;
      break;
    case kWriteOutput:
      return (value & kOutputNotReset) == 0;
    case kWriteKeyboardBuffer:
    case kWriteAuxBuffer:
      Answer(value);
      break;
    default:  // for a keyboard or mouse that is not there
      break;
  }
  return false;
}

void I8042::Reset() noexcept {
  const MutexLock lock(mutex_);
  state_ = State{};
}

void I8042::VisitState(state::Fields& fields) {
  State state = Save();
  fields.Value("status", state.status);
  fields.Value("output", state.output);
  fields.Value("output-full", state.output_full);
  fields.Value("command", state.command);
  fields.Value("configuration", state.configuration);
  fields.Value("system-control", state.system_control);
  if (fields.loading() && fields.ok()) Restore(state);
}

I8042::State I8042::Save() const {
  const MutexLock lock(mutex_);
  return state_;
}

void I8042::Restore(const State& state) {
  const MutexLock lock(mutex_);
  state_ = state;
  state_.status = Without(state_.status, kStatusOutputFull);
  state_.system_control |= kA20;
}

}  // namespace holdfast::devices
