// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

// virtio over PCI: virtio 1.2, 4.1. Registers of the common configuration as offsets.
namespace holdfast::devices::virtio::regs {

inline constexpr std::uint16_t kVendor = 0x1af4;
inline constexpr std::uint16_t kFirstModernDevice = 0x1040;  // plus the device type
inline constexpr std::uint16_t kSubsystem = 0x1100;          // QEMU's

/// Structures a capability points to (4.1.4).
inline constexpr std::uint8_t kCapabilityId = 0x09;  // vendor specific
inline constexpr std::uint8_t kCommonConfig = 1;
inline constexpr std::uint8_t kNotifyConfig = 2;
inline constexpr std::uint8_t kIsrConfig = 3;
inline constexpr std::uint8_t kDeviceConfig = 4;
inline constexpr std::uint8_t kPciConfig = 5;

/// Where the structures lie in their BAR: as in QEMU, a page each, for up to 1024 queues.
inline constexpr unsigned kMsixBar = 1;
inline constexpr unsigned kBar = 4;
inline constexpr std::uint32_t kCommonAt = 0x0000;
inline constexpr std::uint32_t kIsrAt = 0x1000;
inline constexpr std::uint32_t kDeviceAt = 0x2000;
inline constexpr std::uint32_t kNotifyAt = 0x3000;
inline constexpr std::uint32_t kAreaSize = 0x1000;
inline constexpr std::uint32_t kBarSize = 0x4000;
inline constexpr std::uint32_t kNotifyMultiplier = 4;
inline constexpr unsigned kMaxQueues = kAreaSize / kNotifyMultiplier;

enum CommonRegister : std::uint32_t {
  kDeviceFeatureSelect = 0x00,
  kDeviceFeature = 0x04,
  kDriverFeatureSelect = 0x08,
  kDriverFeature = 0x0c,
  kConfigVector = 0x10,
  kNumQueues = 0x12,
  kDeviceStatus = 0x14,
  kConfigGeneration = 0x15,
  kQueueSelect = 0x16,
  kQueueSize = 0x18,
  kQueueVector = 0x1a,
  kQueueEnable = 0x1c,
  kQueueNotifyOffset = 0x1e,
  kQueueDescriptors = 0x20,
  kQueueDriver = 0x28,
  kQueueDevice = 0x30,
  kCommonEnd = 0x38,
};

/// Device status bits (2.1).
inline constexpr std::uint8_t kStatusFeaturesOk = 8;
inline constexpr std::uint8_t kStatusDriverOk = 4;
inline constexpr std::uint8_t kStatusNeedsReset = 64;

inline constexpr std::uint8_t kIsrQueue = 1;
inline constexpr std::uint8_t kIsrConfigChanged = 2;
inline constexpr std::uint16_t kNoVector = 0xffff;

}  // namespace holdfast::devices::virtio::regs
