// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

/// Numbers of the SCSI standards (SPC-4, SBC-3, MMC-6), as far as disks and CD-ROMs need them.
namespace holdfast::devices::scsi {

enum Opcode : std::uint8_t {
  kTestUnitReady = 0x00,
  kRequestSense = 0x03,
  kRead6 = 0x08,
  kWrite6 = 0x0a,
  kInquiry = 0x12,
  kModeSelect6 = 0x15,
  kReserve6 = 0x16,
  kRelease6 = 0x17,
  kModeSense6 = 0x1a,
  kStartStopUnit = 0x1b,
  kPreventAllow = 0x1e,
  kReadCapacity10 = 0x25,
  kRead10 = 0x28,
  kWrite10 = 0x2a,
  kSeek10 = 0x2b,
  kVerify10 = 0x2f,
  kSynchronizeCache10 = 0x35,
  kWriteSame10 = 0x41,
  kUnmap = 0x42,
  kReadToc = 0x43,
  kGetConfiguration = 0x46,
  kGetEventStatus = 0x4a,
  kReadDiscInformation = 0x51,
  kModeSelect10 = 0x55,
  kModeSense10 = 0x5a,
  kRead16 = 0x88,
  kWrite16 = 0x8a,
  kVerify16 = 0x8f,
  kSynchronizeCache16 = 0x91,
  kWriteSame16 = 0x93,
  kServiceActionIn16 = 0x9e,
  kReportLuns = 0xa0,
  kRead12 = 0xa8,
  kWrite12 = 0xaa,
  kMechanismStatus = 0xbd,
};
inline constexpr std::uint8_t kSaiReadCapacity16 = 0x10;

enum StatusCode : std::uint8_t { kGood = 0x00, kCheckCondition = 0x02 };

/// What a failed command tells: sense key, additional sense code and qualifier.
struct Sense {
  std::uint8_t key = 0;
  std::uint8_t code = 0;
  std::uint8_t qualifier = 0;
  bool operator==(const Sense&) const = default;
};
inline constexpr Sense kNoSense{};
inline constexpr Sense kNoMedium{0x02, 0x3a, 0x00};
inline constexpr Sense kNoMediumTrayOpen{0x02, 0x3a, 0x02};
inline constexpr Sense kReadFailed{0x03, 0x11, 0x00};
inline constexpr Sense kTargetFailure{0x04, 0x44, 0x00};
inline constexpr Sense kInvalidOpcode{0x05, 0x20, 0x00};
inline constexpr Sense kLbaOutOfRange{0x05, 0x21, 0x00};
inline constexpr Sense kInvalidField{0x05, 0x24, 0x00};
inline constexpr Sense kLunNotSupported{0x05, 0x25, 0x00};
inline constexpr Sense kInvalidParameter{0x05, 0x26, 0x00};
inline constexpr Sense kBadParameterLength{0x05, 0x1a, 0x00};
inline constexpr Sense kRemovalPrevented{0x05, 0x53, 0x02};
inline constexpr Sense kMediumChanged{0x06, 0x28, 0x00};
inline constexpr Sense kPoweredOn{0x06, 0x29, 0x00};
inline constexpr Sense kCapacityChanged{0x06, 0x2a, 0x09};
inline constexpr Sense kWriteProtected{0x07, 0x27, 0x00};
inline constexpr Sense kNoRoom{0x0d, 0x00, 0x00};
inline constexpr Sense kAborted{0x0b, 0x00, 0x06};

inline constexpr std::size_t kSenseSize = 18;
/// Fixed format (SPC-4, 4.5.3).
constexpr std::array<std::uint8_t, kSenseSize> FixedSense(const Sense& sense) {
  return {0x70, 0, sense.key, 0, 0, 0, 0, 10, 0, 0, 0, 0, sense.code, sense.qualifier};
}

}  // namespace holdfast::devices::scsi
