// SPDX-License-Identifier: Apache-2.0
#include "devices/serial.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace holdfast::devices {

using namespace serial;  // NOLINT(google-build-using-namespace): the registers

namespace {

void Push(Serial::Fifo& fifo, std::uint8_t value) {
  fifo.bytes[(fifo.head + fifo.size) % kFifoSize] = value;
  ++fifo.size;
}

std::uint8_t Pop(Serial::Fifo& fifo) {
  const std::uint8_t value = fifo.bytes[fifo.head];
  fifo.head = static_cast<std::uint8_t>((fifo.head + 1U) % kFifoSize);
  --fifo.size;
  return value;
}

constexpr std::uint8_t Without(std::uint8_t value, unsigned bits) {
  return static_cast<std::uint8_t>(value & ~bits);
}

}  // namespace

Serial::Serial(Chardev* chardev, InterruptLine& irq) : chardev_(chardev), irq_(irq) {
  if (chardev_ == nullptr) return;
  chardev_->SetReceiver([this](std::span<const std::byte> data) { return Receive(data); });
  chardev_->SetWritable([this] { OnWritable(); });
}

Serial::~Serial() {
  if (chardev_ == nullptr) return;
  chardev_->SetReceiver({});
  chardev_->SetWritable({});
}

void Serial::Read(std::uint64_t offset, std::span<std::byte> data) noexcept {
  const MutexLock lock(mutex_);
  for (std::byte& byte : data) byte = std::byte{ReadRegister(offset++)};
}

void Serial::Write(std::uint64_t offset, std::span<const std::byte> data) noexcept {
  const MutexLock lock(mutex_);
  for (const std::byte byte : data) WriteRegister(offset++, std::to_integer<std::uint8_t>(byte));
}

void Serial::Reset() noexcept {
  const MutexLock lock(mutex_);
  state_ = State{};
  UpdateInterrupt();
  OfferAgain();
}

std::uint8_t Serial::ReadRegister(std::uint64_t offset) {
  const bool dlab = (state_.lcr & kLcrDlab) != 0;
  switch (offset) {
    case kRbr:
      return dlab ? static_cast<std::uint8_t>(state_.divisor) : PopReceived();
    case kIer:
      return dlab ? static_cast<std::uint8_t>(state_.divisor >> 8) : state_.ier;
    case kIir: {
      const std::uint8_t id = InterruptId();
      // Reading IIR acknowledges the transmitter's interrupt, and only if it is the one reported.
      if (id == kIirThrEmpty) {
        state_.thr_interrupt = false;
        UpdateInterrupt();
      }
      return (state_.fcr & kFcrEnable) != 0 ? id | kIirFifosEnabled : id;
    }
    case kLcr:
      return state_.lcr;
    case kMcr:
      return state_.mcr;
    case kLsr: {
      const std::uint8_t lsr = state_.lsr;
      if ((lsr & kLsrErrors) != 0) {
        state_.lsr = Without(lsr, kLsrErrors);
        UpdateInterrupt();
      }
      return lsr;
    }
    case kMsr:
      return ModemStatus();
    case kScr:
      return state_.scr;
    default:
      return 0xff;
  }
}

void Serial::WriteRegister(std::uint64_t offset, std::uint8_t value) {
  const bool dlab = (state_.lcr & kLcrDlab) != 0;
  switch (offset) {
    case kThr:
      if (dlab) {
        state_.divisor = static_cast<std::uint16_t>((state_.divisor & 0xff00) | value);
      } else {
        Transmit(value);
      }
      break;
    case kIer: {
      if (dlab) {
        state_.divisor = static_cast<std::uint16_t>((state_.divisor & 0x00ff) | (value << 8));
        break;
      }
      const auto changed = static_cast<std::uint8_t>(state_.ier ^ value);
      state_.ier = value & kIerMask;
      // Enabling the transmitter's interrupt while it is empty raises it, each time: Linux's 8250
      // driver starts sending this way and tests the port for it (UART_BUG_THRE).
      if ((changed & kIerThrEmpty) != 0) {
        state_.thr_interrupt = (value & kIerThrEmpty) != 0 && (state_.lsr & kLsrThrEmpty) != 0;
      }
      UpdateInterrupt();
      break;
    }
    case kFcr:
      WriteFifoControl(value);
      break;
    case kLcr:
      state_.lcr = value;
      break;
    case kMcr: {
      const bool left_loop = (state_.mcr & kMcrLoop) != 0 && (value & kMcrLoop) == 0;
      state_.mcr = value & kMcrMask;
      if (left_loop) OfferAgain();
      break;
    }
    case kScr:
      state_.scr = value;
      break;
    default:  // LSR and MSR are read-only
      break;
  }
}

void Serial::WriteFifoControl(std::uint8_t value) {
  // Turning the FIFOs on or off empties both.
  const bool toggled = ((state_.fcr ^ value) & kFcrEnable) != 0;
  const bool enabled = (value & kFcrEnable) != 0;
  // The other bits count only while bit 0 is written as 1.
  state_.fcr = enabled ? Without(value, kFcrClearRx | kFcrClearTx) : std::uint8_t{0};
  if (toggled || (enabled && (value & kFcrClearTx) != 0)) {
    const bool was_waiting = state_.tx.size != 0;
    state_.tx = Fifo{};
    if (was_waiting) TransmitterEmptied();
  }
  if (toggled || (enabled && (value & kFcrClearRx) != 0)) ClearReceiver();
  UpdateInterrupt();
}

std::size_t Serial::FifoDepth() const {
  return (state_.fcr & kFcrEnable) != 0 ? kFifoSize : 1;
}

void Serial::Transmit(std::uint8_t value) {
  state_.thr_interrupt = false;
  if ((state_.mcr & kMcrLoop) != 0) {
    PushReceived(value);
    TransmitterEmptied();
    UpdateInterrupt();
    return;
  }
  // A guest that writes into a full FIFO has not looked at LSR: as on hardware, the byte is lost.
  if (state_.tx.size < FifoDepth()) Push(state_.tx, value);
  DrainTransmitter();
}

// Hands the FIFO to the Chardev and says what became of it.
void Serial::DrainTransmitter() {
  while (state_.tx.size != 0 && chardev_ != nullptr) {
    const std::size_t run = std::min<std::size_t>(state_.tx.size, kFifoSize - state_.tx.head);
    const std::size_t taken =
        chardev_->Write(std::as_bytes(std::span(state_.tx.bytes).subspan(state_.tx.head, run)));
    state_.tx.head = static_cast<std::uint8_t>((state_.tx.head + taken) % kFifoSize);
    state_.tx.size = static_cast<std::uint8_t>(state_.tx.size - taken);
    if (taken < run) break;
  }
  if (chardev_ == nullptr) state_.tx = Fifo{};
  if (state_.tx.size == 0) {
    TransmitterEmptied();
  } else {
    state_.lsr = Without(state_.lsr, kLsrThrEmpty | kLsrTxEmpty);
  }
  UpdateInterrupt();
}

void Serial::TransmitterEmptied() {
  state_.lsr |= kLsrThrEmpty | kLsrTxEmpty;
  state_.thr_interrupt = true;
}

void Serial::OnWritable() noexcept {
  const MutexLock lock(mutex_);
  if (state_.tx.size != 0) DrainTransmitter();
}

void Serial::PushReceived(std::uint8_t value) {
  if (state_.rx.size < FifoDepth()) {
    Push(state_.rx, value);
  } else {
    state_.lsr |= kLsrOverrun;
    // Without FIFOs the new byte replaces the old one, with them it is lost.
    if ((state_.fcr & kFcrEnable) == 0) state_.rx.bytes[state_.rx.head] = value;
  }
  state_.lsr |= kLsrDataReady;
}

std::uint8_t Serial::PopReceived() {
  if (state_.rx.size == 0) return 0;
  const std::uint8_t value = Pop(state_.rx);
  if (state_.rx.size == 0) {
    state_.lsr = Without(state_.lsr, kLsrDataReady);
    OfferAgain();
  }
  UpdateInterrupt();
  return value;
}

void Serial::ClearReceiver() {
  state_.rx = Fifo{};
  state_.lsr = Without(state_.lsr, kLsrDataReady | kLsrBreak);
  OfferAgain();
}

void Serial::OfferAgain() {
  if (!refused_) return;
  refused_ = false;
  chardev_->ReceiverReady();
}

std::size_t Serial::Receive(std::span<const std::byte> data) noexcept {
  const MutexLock lock(mutex_);
  std::size_t taken = 0;
  // In loopback the receiver is cut off from the line.
  if ((state_.mcr & kMcrLoop) == 0) {
    const std::size_t room = FifoDepth() - std::min<std::size_t>(state_.rx.size, FifoDepth());
    taken = std::min(room, data.size());
    for (const std::byte byte : data.first(taken))
      PushReceived(std::to_integer<std::uint8_t>(byte));
    if (taken != 0) UpdateInterrupt();
  }
  if (taken < data.size()) refused_ = chardev_ != nullptr;
  return taken;
}

void Serial::ReceiveBreak() noexcept {
  const MutexLock lock(mutex_);
  if ((state_.mcr & kMcrLoop) != 0) return;
  PushReceived(0);
  state_.lsr |= kLsrBreak;
  UpdateInterrupt();
}

std::uint8_t Serial::ModemStatus() {
  if ((state_.mcr & kMcrLoop) != 0) {
    std::uint8_t status = 0;
    if ((state_.mcr & kMcrDtr) != 0) status |= kMsrDsr;
    if ((state_.mcr & kMcrRts) != 0) status |= kMsrCts;
    if ((state_.mcr & kMcrOut1) != 0) status |= kMsrRi;
    if ((state_.mcr & kMcrOut2) != 0) status |= kMsrDcd;
    return status;
  }
  const std::uint8_t status = state_.msr;
  if ((status & kMsrDeltas) != 0) {
    state_.msr = Without(status, kMsrDeltas);
    UpdateInterrupt();
  }
  return status;
}

std::uint8_t Serial::InterruptId() const {
  if ((state_.ier & kIerLineStatus) != 0 && (state_.lsr & kLsrErrors) != 0) return kIirLineStatus;
  if ((state_.ier & kIerRxData) != 0 && (state_.lsr & kLsrDataReady) != 0) {
    const bool fifos = (state_.fcr & kFcrEnable) != 0;
    const std::size_t trigger = fifos ? kTriggerLevels.at(state_.fcr >> kFcrTriggerShift) : 1;
    return state_.rx.size >= trigger ? kIirRxData : kIirRxTimeout;
  }
  if ((state_.ier & kIerThrEmpty) != 0 && state_.thr_interrupt) return kIirThrEmpty;
  if ((state_.ier & kIerModemStatus) != 0 && (state_.msr & kMsrDeltas) != 0) return kIirModemStatus;
  return kIirNone;
}

// The line is set only where it changes: each time is a system call.
void Serial::UpdateInterrupt() {
  const bool level = InterruptId() != kIirNone;
  if (level == line_) return;
  line_ = level;
  irq_.Set(level);
}

void Serial::VisitState(state::Fields& fields) {
  State state = Save();
  fields.Value("ier", state.ier);
  fields.Value("fcr", state.fcr);
  fields.Value("lcr", state.lcr);
  fields.Value("mcr", state.mcr);
  fields.Value("lsr", state.lsr);
  fields.Value("msr", state.msr);
  fields.Value("scr", state.scr);
  fields.Value("divisor", state.divisor);
  fields.Value("thr-interrupt", state.thr_interrupt);
  for (const auto& [name, fifo] : {std::pair<std::string_view, Fifo&>("rx", state.rx),
                                   std::pair<std::string_view, Fifo&>("tx", state.tx)}) {
    std::vector<std::byte> queued;
    for (Fifo copy = fifo; copy.size != 0;) queued.push_back(std::byte{Pop(copy)});
    fields.Blob(name, queued, kFifoSize);
    fifo = Fifo{};
    for (const std::byte byte : queued) Push(fifo, std::to_integer<std::uint8_t>(byte));
  }
  if (fields.loading() && fields.ok()) Restore(state);
}

Serial::State Serial::Save() const {
  const MutexLock lock(mutex_);
  return state_;
}

void Serial::Restore(const State& state) {
  const MutexLock lock(mutex_);
  state_ = state;
  state_.ier &= kIerMask;
  state_.mcr &= kMcrMask;
  for (Fifo* fifo : {&state_.rx, &state_.tx}) {
    fifo->head %= kFifoSize;
    fifo->size = std::min<std::uint8_t>(fifo->size, kFifoSize);
  }
  state_.lsr = Without(state_.lsr, kLsrDataReady);
  if (state_.rx.size != 0) state_.lsr |= kLsrDataReady;
  // What waited for the old Chardev goes to the new one; an empty transmitter stays as it was.
  if (state_.tx.size != 0) {
    DrainTransmitter();
  } else {
    state_.lsr |= kLsrThrEmpty | kLsrTxEmpty;
  }
  UpdateInterrupt();
  OfferAgain();
}

}  // namespace holdfast::devices
