// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include <holdfast/error.h>

namespace holdfast {

class RamBlock;
namespace kvm {
class Vm;
}

/// How the host's NUMA nodes are chosen for memory; the words of QEMU's `policy`, in its order.
enum class NumaMode : std::uint8_t { kDefault, kPreferred, kBind, kInterleave };

/// A policy and the host nodes it speaks of (numbers below kMaxNumaNodes).
struct NumaPolicy {
  NumaMode mode = NumaMode::kDefault;
  std::vector<std::uint64_t> nodes;
};

/// Host nodes are numbered below this, as in QEMU.
inline constexpr std::uint64_t kMaxNumaNodes = 128;

/// Sets the policy of a page-aligned mapping (mbind), before its pages are allocated: pages that
/// are there stay where they are. For a shared mapping of a memfd, and from Linux 6.19 on of a
/// guest_memfd, it is the memory's policy, whoever touches it; see GuestMemfdTakesPolicy.
/// @return the failed mbind: EINVAL for a node the host does not have.
Status SetNumaPolicy(std::span<std::byte> mapping, const NumaPolicy& policy);

/// Whether this kernel allocates a guest_memfd's pages by the policy of its mapping. Linux 6.18
/// accepts mbind and takes no notice; since 6.19 the policy is the inode's. Found out by trying: a
/// policy set through one mapping of a scratch guest_memfd shows at another one or does not.
Result<bool> GuestMemfdTakesPolicy(const kvm::Vm& vm);

/// The policy by which the calling thread's own allocations choose their node, until this object
/// goes. Where the memory has no policy of its own, it decides on which node a page is that this
/// thread touches first.
class ThreadNumaPolicy {
 public:
  /// @return the failed set_mempolicy: EINVAL for a node the host does not have.
  static Result<ThreadNumaPolicy> Set(const NumaPolicy& policy);
  ThreadNumaPolicy(ThreadNumaPolicy&& other) noexcept : set_(std::exchange(other.set_, false)) {}
  ThreadNumaPolicy(const ThreadNumaPolicy&) = delete;
  ThreadNumaPolicy& operator=(const ThreadNumaPolicy&) = delete;
  ThreadNumaPolicy& operator=(ThreadNumaPolicy&&) = delete;
  ~ThreadNumaPolicy();

 private:
  explicit ThreadNumaPolicy(bool set) noexcept : set_(set) {}
  bool set_;
};

/// A page that is not allocated, in QueryPageNodes' answer.
inline constexpr std::int16_t kNoNode = -1;

/// On which host node each 4 KiB page of [offset, offset + pages * 4 KiB) of the block lies;
/// kNoNode where nothing is allocated. Asking allocates nothing (unless a hole is punched under
/// it at that very moment) and leaves no mapping behind. On a host with one node it costs a few
/// milliseconds for each GiB that is allocated, with several nodes some ten times that.
/// @param nodes  receives one number a page
/// @return kInvalidArgument for a range outside the block, else the failed system call.
Status QueryPageNodes(const RamBlock& block, std::uint64_t offset, std::span<std::int16_t> nodes);

/// Where a block's memory is.
struct Placement {
  std::uint64_t allocated = 0;                   ///< bytes
  std::map<std::uint64_t, std::uint64_t> nodes;  ///< bytes by host node, of nodes with any
};
/// QueryPageNodes over the whole block.
Result<Placement> QueryPlacement(const RamBlock& block);

}  // namespace holdfast
