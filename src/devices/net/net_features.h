// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace holdfast::devices::net {

/// Feature bits of a virtio network device (virtio 1.2, 5.1.3). HOST is what the device takes from
/// the driver, GUEST what the driver takes from the device.
enum NetFeature : std::uint64_t {
  kNetCsum = 1ULL << 0,
  kNetGuestCsum = 1ULL << 1,
  kNetControlGuestOffloads = 1ULL << 2,
  kNetMtu = 1ULL << 3,
  kNetMac = 1ULL << 5,
  kNetGuestTso4 = 1ULL << 7,
  kNetGuestTso6 = 1ULL << 8,
  kNetGuestEcn = 1ULL << 9,
  kNetGuestUfo = 1ULL << 10,
  kNetHostTso4 = 1ULL << 11,
  kNetHostTso6 = 1ULL << 12,
  kNetHostEcn = 1ULL << 13,
  kNetHostUfo = 1ULL << 14,
  kNetMergeableBuffers = 1ULL << 15,
  kNetStatus = 1ULL << 16,
  kNetControlQueue = 1ULL << 17,
  kNetControlRx = 1ULL << 18,
  kNetControlVlan = 1ULL << 19,
  kNetControlRxExtra = 1ULL << 20,
  kNetGuestAnnounce = 1ULL << 21,
  kNetMultiQueue = 1ULL << 22,
  kNetControlMac = 1ULL << 23,
  kNetGuestUso4 = 1ULL << 54,
  kNetGuestUso6 = 1ULL << 55,
  kNetHostUso = 1ULL << 56,
  kNetSpeedDuplex = 1ULL << 63,
};

/// What needs the back end's help, by direction.
inline constexpr std::uint64_t kNetHostOffloads =
    kNetCsum | kNetHostTso4 | kNetHostTso6 | kNetHostEcn | kNetHostUfo | kNetHostUso;
inline constexpr std::uint64_t kNetGuestOffloads = kNetGuestCsum | kNetGuestTso4 | kNetGuestTso6 |
                                                   kNetGuestEcn | kNetGuestUfo | kNetGuestUso4 |
                                                   kNetGuestUso6;

}  // namespace holdfast::devices::net
