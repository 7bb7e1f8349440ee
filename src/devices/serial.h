// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/state.h"
#include "base/thread_annotations.h"
#include "devices/bus.h"
#include "devices/chardev.h"
#include "devices/serial_regs.h"

namespace holdfast::devices {

/// A 16550A UART. Eight byte-wide registers (serial_regs.h); a wider access is as many byte
/// accesses to the registers that follow, as on ISA.
///
/// The line has no speed: a byte written to the transmitter is in the Chardev's buffer before the
/// instruction ends, so THRE and TEMT stay set. Only when that buffer is full do bytes wait in the
/// transmit FIFO, with THRE and TEMT clear until the Chardev says it has room: a guest that looks
/// at LSR, as all drivers do, loses nothing. For the same reason the receive time-out comes at
/// once: data below the trigger level is reported as kIirRxTimeout without four characters' wait.
///
/// Thread-safety: Read and Write from any vCPU thread; the rest on the main loop's thread.
class Serial final : public BusDevice {
 public:
  /// A queue of up to kFifoSize bytes.
  struct Fifo {
    std::array<std::uint8_t, serial::kFifoSize> bytes{};
    std::uint8_t head = 0;
    std::uint8_t size = 0;
  };

  /// All that a snapshot needs. The interrupt line follows from it.
  struct State {
    std::uint8_t ier = 0;
    std::uint8_t fcr = 0;  // kFcrEnable and the trigger level
    std::uint8_t lcr = 0;
    std::uint8_t mcr = serial::kMcrOut2;
    std::uint8_t lsr = serial::kLsrThrEmpty | serial::kLsrTxEmpty;
    std::uint8_t msr = serial::kMsrDcd | serial::kMsrDsr | serial::kMsrCts;
    std::uint8_t scr = 0;
    std::uint16_t divisor = serial::kDefaultDivisor;
    bool thr_interrupt = false;  // the transmitter became empty and nobody has been told
    Fifo rx;
    Fifo tx;  // what the Chardev had no room for
  };

  /// A port whose far end is `chardev` (null: nothing connected, output vanishes) and which pulls
  /// `irq`. Both outlive it.
  Serial(Chardev* chardev, InterruptLine& irq);
  Serial(const Serial&) = delete;
  Serial& operator=(const Serial&) = delete;
  ~Serial() override;

  std::string_view name() const noexcept override { return "serial"; }
  void Read(std::uint64_t offset, std::span<std::byte> data) noexcept override;
  void Write(std::uint64_t offset, std::span<const std::byte> data) noexcept override;
  void Reset() noexcept override;

  /// Bytes from the far end. Returns how many the receive FIFO took.
  std::size_t Receive(std::span<const std::byte> data) noexcept;
  /// A break condition from the far end (Linux: magic SysRq).
  void ReceiveBreak() noexcept;

  /// Main thread, vCPUs standing.
  void VisitState(state::Fields& fields);
  State Save() const;
  /// Takes over `state`, whatever its source: sizes are clamped, unknown bits dropped.
  void Restore(const State& state);

 private:
  std::uint8_t ReadRegister(std::uint64_t offset) HF_REQUIRES(mutex_);
  void WriteRegister(std::uint64_t offset, std::uint8_t value) HF_REQUIRES(mutex_);
  void WriteFifoControl(std::uint8_t value) HF_REQUIRES(mutex_);
  void Transmit(std::uint8_t value) HF_REQUIRES(mutex_);
  void DrainTransmitter() HF_REQUIRES(mutex_);
  void TransmitterEmptied() HF_REQUIRES(mutex_);
  void PushReceived(std::uint8_t value) HF_REQUIRES(mutex_);
  std::uint8_t PopReceived() HF_REQUIRES(mutex_);
  void ClearReceiver() HF_REQUIRES(mutex_);
  void OfferAgain() HF_REQUIRES(mutex_);
  std::size_t FifoDepth() const HF_REQUIRES(mutex_);
  std::uint8_t InterruptId() const HF_REQUIRES(mutex_);
  std::uint8_t ModemStatus() HF_REQUIRES(mutex_);
  void UpdateInterrupt() HF_REQUIRES(mutex_);
  void OnWritable() noexcept;

  Chardev* const chardev_;
  InterruptLine& irq_;

  // Taken by vCPU threads and the main loop's. Held while calling Chardev::Write and
  // InterruptLine::Set, which have locks of their own below this one.
  mutable Mutex mutex_;
  State state_ HF_GUARDED_BY(mutex_);
  bool line_ HF_GUARDED_BY(mutex_) = false;     // what irq_ was last set to
  bool refused_ HF_GUARDED_BY(mutex_) = false;  // the Chardev waits for ReceiverReady()
};

}  // namespace holdfast::devices
