// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/ioctl.h>

#include <cstdint>

// The kernel's interface to its vhost devices, as of Linux 6.18 (include/uapi/linux/vhost.h and
// vhost_types.h, whose flexible arrays are not C++).
namespace holdfast::devices::vhost::abi {

inline constexpr unsigned kMagic = 0xaf;

/// A piece of guest memory: where the guest and where this process have it.
struct MemoryRegion {
  std::uint64_t guest_address = 0;
  std::uint64_t size = 0;
  std::uint64_t user_address = 0;
  std::uint64_t flags = 0;  // none are defined
};
/// What VHOST_SET_MEM_TABLE takes; `count` regions follow.
struct MemoryTable {
  std::uint32_t count = 0;
  std::uint32_t padding = 0;
};
/// How many regions a table may have (module parameter max_mem_regions).
inline constexpr std::size_t kMostRegions = 64;

struct VringState {
  std::uint32_t index = 0;
  std::uint32_t value = 0;  // entries, or the next entry of the available ring
};
struct VringAddress {
  std::uint32_t index = 0;
  std::uint32_t flags = 0;
  std::uint64_t descriptors = 0;  // addresses in this process
  std::uint64_t used = 0;
  std::uint64_t available = 0;
  std::uint64_t log = 0;  // of the used ring's dirty log: a guest physical address
};
struct VringFile {
  std::uint32_t index = 0;
  std::int32_t fd = -1;  // none
};

inline constexpr unsigned long kGetFeatures = _IOR(kMagic, 0x00, std::uint64_t);
inline constexpr unsigned long kSetFeatures = _IOW(kMagic, 0x00, std::uint64_t);
inline constexpr unsigned long kSetOwner = _IO(kMagic, 0x01);
inline constexpr unsigned long kSetMemoryTable = _IOW(kMagic, 0x03, MemoryTable);
inline constexpr unsigned long kSetVringSize = _IOW(kMagic, 0x10, VringState);
inline constexpr unsigned long kSetVringAddress = _IOW(kMagic, 0x11, VringAddress);
inline constexpr unsigned long kSetVringBase = _IOW(kMagic, 0x12, VringState);
inline constexpr unsigned long kGetVringBase = _IOWR(kMagic, 0x12, VringState);
inline constexpr unsigned long kSetVringKick = _IOW(kMagic, 0x20, VringFile);
inline constexpr unsigned long kSetVringCall = _IOW(kMagic, 0x21, VringFile);
inline constexpr unsigned long kSetVringError = _IOW(kMagic, 0x22, VringFile);
inline constexpr unsigned long kNetSetBackend = _IOW(kMagic, 0x30, VringFile);
inline constexpr unsigned long kVsockSetGuestCid = _IOW(kMagic, 0x60, std::uint64_t);
inline constexpr unsigned long kVsockSetRunning = _IOW(kMagic, 0x61, std::int32_t);

}  // namespace holdfast::devices::vhost::abi
