// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

/// The registers of a 16550A UART. Spec: National Semiconductor PC16550D data sheet.
namespace holdfast::devices::serial {

/// ISA addresses and interrupts of COM1 to COM4.
inline constexpr std::array<std::uint16_t, 4> kPorts = {0x3f8, 0x2f8, 0x3e8, 0x2e8};
inline constexpr std::array<unsigned, 4> kIrqs = {4, 3, 4, 3};
inline constexpr std::uint64_t kPortCount = 8;

inline constexpr std::size_t kFifoSize = 16;

// Offsets. The first two are the divisor while LCR.DLAB is set.
inline constexpr std::uint64_t kRbr = 0;  // read: receiver buffer
inline constexpr std::uint64_t kThr = 0;  // write: transmitter holding
inline constexpr std::uint64_t kDll = 0;
inline constexpr std::uint64_t kIer = 1;
inline constexpr std::uint64_t kDlm = 1;
inline constexpr std::uint64_t kIir = 2;  // read
inline constexpr std::uint64_t kFcr = 2;  // write
inline constexpr std::uint64_t kLcr = 3;
inline constexpr std::uint64_t kMcr = 4;
inline constexpr std::uint64_t kLsr = 5;
inline constexpr std::uint64_t kMsr = 6;
inline constexpr std::uint64_t kScr = 7;

// Interrupt enable.
inline constexpr std::uint8_t kIerRxData = 0x01;
inline constexpr std::uint8_t kIerThrEmpty = 0x02;
inline constexpr std::uint8_t kIerLineStatus = 0x04;
inline constexpr std::uint8_t kIerModemStatus = 0x08;
inline constexpr std::uint8_t kIerMask = 0x0f;

// Interrupt identification, highest priority first.
inline constexpr std::uint8_t kIirLineStatus = 0x06;
inline constexpr std::uint8_t kIirRxTimeout = 0x0c;
inline constexpr std::uint8_t kIirRxData = 0x04;
inline constexpr std::uint8_t kIirThrEmpty = 0x02;
inline constexpr std::uint8_t kIirModemStatus = 0x00;
inline constexpr std::uint8_t kIirNone = 0x01;
inline constexpr std::uint8_t kIirIdMask = 0x0f;
inline constexpr std::uint8_t kIirFifosEnabled = 0xc0;

// FIFO control.
inline constexpr std::uint8_t kFcrEnable = 0x01;
inline constexpr std::uint8_t kFcrClearRx = 0x02;
inline constexpr std::uint8_t kFcrClearTx = 0x04;
inline constexpr unsigned kFcrTriggerShift = 6;
inline constexpr std::array<std::size_t, 4> kTriggerLevels = {1, 4, 8, 14};

inline constexpr std::uint8_t kLcrDlab = 0x80;

// Modem control.
inline constexpr std::uint8_t kMcrDtr = 0x01;
inline constexpr std::uint8_t kMcrRts = 0x02;
inline constexpr std::uint8_t kMcrOut1 = 0x04;
inline constexpr std::uint8_t kMcrOut2 = 0x08;
inline constexpr std::uint8_t kMcrLoop = 0x10;
inline constexpr std::uint8_t kMcrMask = 0x1f;

// Line status.
inline constexpr std::uint8_t kLsrDataReady = 0x01;
inline constexpr std::uint8_t kLsrOverrun = 0x02;
inline constexpr std::uint8_t kLsrParity = 0x04;
inline constexpr std::uint8_t kLsrFraming = 0x08;
inline constexpr std::uint8_t kLsrBreak = 0x10;
inline constexpr std::uint8_t kLsrThrEmpty = 0x20;
inline constexpr std::uint8_t kLsrTxEmpty = 0x40;
inline constexpr std::uint8_t kLsrErrors = kLsrOverrun | kLsrParity | kLsrFraming | kLsrBreak;

// Modem status.
inline constexpr std::uint8_t kMsrDeltas = 0x0f;
inline constexpr std::uint8_t kMsrCts = 0x10;
inline constexpr std::uint8_t kMsrDsr = 0x20;
inline constexpr std::uint8_t kMsrRi = 0x40;
inline constexpr std::uint8_t kMsrDcd = 0x80;

/// 9600 baud with the PC's 1.8432 MHz clock.
inline constexpr std::uint16_t kDefaultDivisor = 12;

}  // namespace holdfast::devices::serial
