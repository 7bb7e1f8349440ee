// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

// What driver and network device read and write (virtio 1.2, 5.1.4 and 5.1.6.5).
namespace holdfast::devices::virtio {

/// The device's configuration.
struct NetRegisters {
  std::uint8_t mac[6];
  std::uint16_t status;
  std::uint16_t max_virtqueue_pairs;
  std::uint16_t mtu;
  std::uint32_t speed;
  std::uint8_t duplex;
};
static_assert(offsetof(NetRegisters, duplex) == 16);

/// NetRegisters::status.
inline constexpr std::uint16_t kStatusLinkUp = 1;
inline constexpr std::uint16_t kStatusAnnounce = 2;

/// Addresses in both tables of the filter together, as in QEMU.
inline constexpr std::size_t kMostMacs = 64;

/// The first byte of a control request.
enum NetControlClass : std::uint8_t {
  kControlRx = 0,
  kControlMac = 1,
  kControlVlan = 2,
  kControlAnnounce = 3,
  kControlQueues = 4,
  kControlOffloads = 5,
};
/// The second byte, by class.
inline constexpr std::uint8_t kRxPromiscuous = 0;
inline constexpr std::uint8_t kRxAllMulticast = 1;
inline constexpr std::uint8_t kRxAllUnicast = 2;
inline constexpr std::uint8_t kRxNoMulticast = 3;
inline constexpr std::uint8_t kRxNoUnicast = 4;
inline constexpr std::uint8_t kRxNoBroadcast = 5;
inline constexpr std::uint8_t kMacTableSet = 0;
inline constexpr std::uint8_t kMacAddressSet = 1;
inline constexpr std::uint8_t kVlanAdd = 0;
inline constexpr std::uint8_t kVlanDelete = 1;
inline constexpr std::uint8_t kAnnounceAcknowledge = 0;
inline constexpr std::uint8_t kQueuePairsSet = 0;
inline constexpr std::uint8_t kOffloadsSet = 0;

/// The answer's byte.
inline constexpr std::uint8_t kControlOk = 0;
inline constexpr std::uint8_t kControlError = 1;

}  // namespace holdfast::devices::virtio
