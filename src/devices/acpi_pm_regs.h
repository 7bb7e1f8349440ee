// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

/// ACPI fixed hardware where QEMU's q35 (ICH9) has it. The FADT and DSDT are made from these too.
/// Spec: ACPI 6.5, 4.8 "ACPI Register Model"; Intel ICH9 data sheet, 13.8.
namespace holdfast::devices::acpi {

inline constexpr std::uint16_t kPmBase = 0x600;
inline constexpr std::uint8_t kSciIrq = 9;

// PM1a event block: two 16-bit registers.
inline constexpr std::uint16_t kPm1EventPort = kPmBase;
inline constexpr std::uint8_t kPm1EventLength = 4;
inline constexpr std::uint64_t kPm1Status = 0x00;
inline constexpr std::uint64_t kPm1Enable = 0x02;
// PM1a control block: one 16-bit register.
inline constexpr std::uint16_t kPm1ControlPort = kPmBase + 0x04;
inline constexpr std::uint8_t kPm1ControlLength = 2;
inline constexpr std::uint64_t kPm1Control = 0x04;
// The timer: 32 bits, read-only.
inline constexpr std::uint16_t kPmTimerPort = kPmBase + 0x08;
inline constexpr std::uint8_t kPmTimerLength = 4;
inline constexpr std::uint64_t kPmTimer = 0x08;
inline constexpr std::uint64_t kPmTimerHz = 3'579'545;
// General purpose events: 8 bytes of status, 8 of enable.
inline constexpr std::uint16_t kGpe0Port = kPmBase + 0x20;
inline constexpr std::uint8_t kGpe0Length = 16;
inline constexpr std::uint64_t kGpe0 = 0x20;
inline constexpr std::uint64_t kPmSize = 0x30;
/// The event that says that vmgenid's number has changed; the DSDT has its handler as _E05.
inline constexpr unsigned kGenerationEvent = 5;

// Bits of PM1 status and enable.
inline constexpr std::uint16_t kPm1PowerButton = 1 << 8;
inline constexpr std::uint16_t kPm1SleepButton = 1 << 9;
inline constexpr std::uint16_t kPm1Rtc = 1 << 10;
// Bits of PM1 control.
inline constexpr std::uint16_t kPm1SciEnable = 1 << 0;
inline constexpr std::uint16_t kPm1SleepEnable = 1 << 13;
inline constexpr unsigned kPm1SleepTypeShift = 10;
inline constexpr std::uint16_t kPm1SleepTypeMask = 7;
/// SLP_TYP of S5 (soft off), as \_S5 in the DSDT says.
inline constexpr std::uint16_t kSleepTypeS5 = 0;

// SMI command port and the values that hand the hardware to the OS and back.
inline constexpr std::uint16_t kSmiCommandPort = 0xb2;
inline constexpr std::uint16_t kSmiStatusPort = 0xb3;
inline constexpr std::uint8_t kAcpiEnable = 0x02;
inline constexpr std::uint8_t kAcpiDisable = 0x03;

/// Reset control register; a write with kResetCpu set resets.
inline constexpr std::uint16_t kResetPort = 0xcf9;
inline constexpr std::uint8_t kResetSystem = 0x02;
inline constexpr std::uint8_t kResetCpu = 0x04;
/// What the FADT tells the OS to write there.
inline constexpr std::uint8_t kResetValue = 0x0f;

}  // namespace holdfast::devices::acpi
