// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

// The numbers and structures of the vhost-user protocol, version 1, as QEMU's documentation
// (docs/interop/vhost-user.rst) gives them. All integers are in the host's byte order.
namespace holdfast::devices::vhost_user {

/// What the front end asks for.
enum class Request : std::uint32_t {
  kGetFeatures = 1,
  kSetFeatures = 2,
  kSetOwner = 3,
  kSetMemTable = 5,
  kSetVringNum = 8,
  kSetVringAddr = 9,
  kSetVringBase = 10,
  kGetVringBase = 11,
  kSetVringKick = 12,
  kSetVringCall = 13,
  kGetProtocolFeatures = 15,
  kSetProtocolFeatures = 16,
  kGetQueueNum = 17,
  kSetVringEnable = 18,
  kSendRarp = 19,
  kNetSetMtu = 20,
  kSetBackendReqFd = 21,
  kGetConfig = 24,
  kSetConfig = 25,
  kGetInflightFd = 31,
  kSetInflightFd = 32,
  kResetDevice = 34,
  kSetStatus = 39,
};

/// What the back end asks for, on a channel of its own.
enum class BackendRequest : std::uint32_t {
  kConfigChange = 2,
};

/// Among the virtio feature bits: there are protocol features to agree on.
inline constexpr std::uint64_t kFeatureProtocol = 1ULL << 30;

/// Bits of GET_PROTOCOL_FEATURES.
enum Protocol : std::uint64_t {
  kProtocolMq = 1ULL << 0,
  kProtocolLogShmfd = 1ULL << 1,
  kProtocolRarp = 1ULL << 2,
  kProtocolReplyAck = 1ULL << 3,
  kProtocolNetMtu = 1ULL << 4,
  kProtocolBackendReq = 1ULL << 5,
  kProtocolConfig = 1ULL << 9,
  kProtocolInflightShmfd = 1ULL << 12,
  kProtocolResetDevice = 1ULL << 13,
  kProtocolStatus = 1ULL << 16,
};

/// In front of every message.
struct Header {
  std::uint32_t request = 0;
  std::uint32_t flags = 0;  ///< version in the lowest two bits
  std::uint32_t size = 0;   ///< bytes that follow
};
inline constexpr std::uint32_t kVersion = 1;
inline constexpr std::uint32_t kVersionMask = 3;
inline constexpr std::uint32_t kFlagReply = 1U << 2;
inline constexpr std::uint32_t kFlagNeedReply = 1U << 3;

/// No message that is known is longer.
inline constexpr std::size_t kMaxPayload = 4096;
/// Descriptors in one message, and regions in one memory table.
inline constexpr std::size_t kMaxFds = 8;
inline constexpr std::size_t kMaxRegions = 8;
inline constexpr std::size_t kMaxConfig = 256;

struct MemoryRegion {
  std::uint64_t guest_address = 0;
  std::uint64_t size = 0;
  std::uint64_t user_address = 0;  ///< the front end's address space, where rings are named
  std::uint64_t mmap_offset = 0;
};
struct MemoryTableHead {
  std::uint32_t regions = 0;
  std::uint32_t padding = 0;
};
struct VringState {
  std::uint32_t index = 0;
  std::uint32_t value = 0;
};
struct VringAddress {
  std::uint32_t index = 0;
  std::uint32_t flags = 0;
  std::uint64_t descriptors = 0;
  std::uint64_t used = 0;
  std::uint64_t available = 0;
  std::uint64_t log = 0;
};
struct ConfigHead {
  std::uint32_t offset = 0;
  std::uint32_t size = 0;
  std::uint32_t flags = 0;  ///< 0: what the driver may write
};
struct InflightLayout {
  std::uint64_t mmap_size = 0;
  std::uint64_t mmap_offset = 0;
  std::uint16_t queues = 0;
  std::uint16_t queue_size = 0;
  std::uint32_t padding = 0;
};
/// Bytes of an InflightLayout on the wire: without the padding.
inline constexpr std::size_t kInflightSize = 20;

static_assert(sizeof(Header) == 12 && sizeof(MemoryRegion) == 32 && sizeof(VringAddress) == 40 &&
              sizeof(ConfigHead) == 12 && sizeof(InflightLayout) == 24);

}  // namespace holdfast::devices::vhost_user
