// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

/// The cells of the MC146818 and of a PC's CMOS memory.
namespace holdfast::devices::rtc {

inline constexpr std::uint8_t kSeconds = 0x00;
inline constexpr std::uint8_t kSecondsAlarm = 0x01;
inline constexpr std::uint8_t kMinutes = 0x02;
inline constexpr std::uint8_t kMinutesAlarm = 0x03;
inline constexpr std::uint8_t kHours = 0x04;
inline constexpr std::uint8_t kHoursAlarm = 0x05;
inline constexpr std::uint8_t kWeekday = 0x06;  // 1 is Sunday
inline constexpr std::uint8_t kDay = 0x07;
inline constexpr std::uint8_t kMonth = 0x08;
inline constexpr std::uint8_t kYear = 0x09;
inline constexpr std::uint8_t kA = 0x0a;
inline constexpr std::uint8_t kB = 0x0b;
inline constexpr std::uint8_t kC = 0x0c;
inline constexpr std::uint8_t kD = 0x0d;

/// An alarm cell with both bits set matches every value.
inline constexpr std::uint8_t kAlarmAny = 0xc0;
/// In the 12-hour form.
inline constexpr std::uint8_t kHourPm = 0x80;

inline constexpr std::uint8_t kAUpdating = 0x80;
inline constexpr std::uint8_t kADividerReset = 0x60;  // both bits: the divider is held in reset
inline constexpr std::uint8_t kARateMask = 0x0f;
inline constexpr std::uint8_t kADefault = 0x26;  // 32.768 kHz, 1024 Hz

inline constexpr std::uint8_t kBSet = 0x80;
inline constexpr std::uint8_t kBPeriodic = 0x40;
inline constexpr std::uint8_t kBAlarm = 0x20;
inline constexpr std::uint8_t kBUpdate = 0x10;
inline constexpr std::uint8_t kBSquareWave = 0x08;
inline constexpr std::uint8_t kBBinary = 0x04;
inline constexpr std::uint8_t kB24Hours = 0x02;
inline constexpr std::uint8_t kBInterrupts = kBPeriodic | kBAlarm | kBUpdate;

/// Register C has a flag for each interrupt where B has its enable bit, and the sum of them.
inline constexpr std::uint8_t kCInterrupt = 0x80;

inline constexpr std::uint8_t kDValid = 0x80;

// CMOS memory.
inline constexpr std::uint8_t kEquipment = 0x14;
inline constexpr std::uint8_t kBaseMemory = 0x15;       // KiB below 640 KiB, 16 bits
inline constexpr std::uint8_t kExtendedMemory = 0x17;   // KiB above 1 MiB, 16 bits
inline constexpr std::uint8_t kExtendedMemory2 = 0x30;  // the same again
inline constexpr std::uint8_t kCentury = 0x32;
inline constexpr std::uint8_t kMemoryAbove16M = 0x34;  // 64 KiB units, 16 bits
inline constexpr std::uint8_t kCenturyPs2 = 0x37;
inline constexpr std::uint8_t kMemoryAbove4G = 0x5b;  // 64 KiB units, 24 bits
inline constexpr std::uint8_t kCpusMinusOne = 0x5f;

inline constexpr std::uint8_t kEquipmentFpu = 0x02;

}  // namespace holdfast::devices::rtc
