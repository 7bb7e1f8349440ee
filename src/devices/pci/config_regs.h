// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

/// Registers of PCI configuration space.
/// Spec: PCI Local Bus 3.0, chapter 6; PCI Express Base 5.0, 7.5.
namespace holdfast::devices::pci {

inline constexpr std::uint16_t kRegVendor = 0x00;
inline constexpr std::uint16_t kRegDevice = 0x02;
inline constexpr std::uint16_t kRegCommand = 0x04;
inline constexpr std::uint16_t kRegStatus = 0x06;
inline constexpr std::uint16_t kRegRevision = 0x08;  // then three bytes of class code
inline constexpr std::uint16_t kRegCacheLine = 0x0c;
inline constexpr std::uint16_t kRegHeaderType = 0x0e;
inline constexpr std::uint16_t kRegBar0 = 0x10;
inline constexpr std::uint16_t kRegSubsystemVendor = 0x2c;
inline constexpr std::uint16_t kRegSubsystem = 0x2e;
inline constexpr std::uint16_t kRegCapabilities = 0x34;
inline constexpr std::uint16_t kRegInterruptLine = 0x3c;
inline constexpr std::uint16_t kRegInterruptPin = 0x3d;

inline constexpr std::uint16_t kCommandIo = 1 << 0;
inline constexpr std::uint16_t kCommandMemory = 1 << 1;
inline constexpr std::uint16_t kCommandMaster = 1 << 2;
inline constexpr std::uint16_t kCommandParity = 1 << 6;
inline constexpr std::uint16_t kCommandSerr = 1 << 8;
inline constexpr std::uint16_t kCommandIntxDisable = 1 << 10;
inline constexpr std::uint16_t kStatusInterrupt = 1 << 3;
inline constexpr std::uint16_t kStatusCapabilities = 1 << 4;

inline constexpr std::uint8_t kHeaderMultifunction = 0x80;
inline constexpr std::uint8_t kHeaderBridge = 0x01;

inline constexpr std::uint32_t kBarIo = 0x1;
inline constexpr std::uint32_t kBarMemory64 = 0x4;
inline constexpr std::uint32_t kBarPrefetchable = 0x8;

// Type 1 headers: bridges.
inline constexpr std::uint16_t kRegPrimaryBus = 0x18;
inline constexpr std::uint16_t kRegSecondaryBus = 0x19;
inline constexpr std::uint16_t kRegSubordinateBus = 0x1a;
inline constexpr std::uint16_t kRegIoBase = 0x1c;
inline constexpr std::uint16_t kRegIoLimit = 0x1d;
inline constexpr std::uint16_t kRegMemoryBase = 0x20;
inline constexpr std::uint16_t kRegMemoryLimit = 0x22;
inline constexpr std::uint16_t kRegPrefetchBase = 0x24;
inline constexpr std::uint16_t kRegPrefetchLimit = 0x26;
inline constexpr std::uint16_t kRegPrefetchBaseUpper = 0x28;
inline constexpr std::uint16_t kRegPrefetchLimitUpper = 0x2c;
inline constexpr std::uint16_t kRegBridgeControl = 0x3e;

inline constexpr std::uint8_t kCapMsix = 0x11;
inline constexpr std::uint8_t kCapExpress = 0x10;
inline constexpr std::uint8_t kCapVendor = 0x09;

// MSI-X: message control, behind the capability's id and next pointer.
inline constexpr std::uint16_t kMsixControl = 2;
inline constexpr std::uint16_t kMsixEnable = 1 << 15;
inline constexpr std::uint16_t kMsixFunctionMask = 1 << 14;
inline constexpr unsigned kMsixEntrySize = 16;
inline constexpr unsigned kMsixMostVectors = 2048;

// PCI Express device and port types.
inline constexpr std::uint8_t kExpressEndpoint = 0x0;
inline constexpr std::uint8_t kExpressRootPort = 0x4;
inline constexpr std::uint8_t kExpressIntegratedEndpoint = 0x9;

}  // namespace holdfast::devices::pci
