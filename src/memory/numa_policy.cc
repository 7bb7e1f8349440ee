// SPDX-License-Identifier: Apache-2.0
#include <holdfast/guest_memfd.h>
#include <holdfast/mapping.h>
#include <holdfast/numa_policy.h>
#include <holdfast/units.h>
#include <holdfast/vm.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <climits>

namespace holdfast {
namespace {

// Since Linux 5.15; the distribution's header may be older.
constexpr int kPreferredMany = 5;

constexpr std::size_t kWordBits = sizeof(unsigned long) * CHAR_BIT;

// The kernel's nodemask, and how many bits of it count (it reads one less than it is told).
struct NodeMask {
  std::array<unsigned long, kMaxNumaNodes / kWordBits> words{};
  static constexpr unsigned long kBits = kMaxNumaNodes + 1;
};

Result<NodeMask> ToMask(const NumaPolicy& policy) {
  NodeMask mask;
  for (const std::uint64_t node : policy.nodes) {
    if (node >= kMaxNumaNodes) {
      return Fail(Errc::kInvalidArgument, "Invalid host-nodes value: " + std::to_string(node),
                  "Host nodes are numbered from 0 to 127.");
    }
    mask.words[node / kWordBits] |= 1UL << node % kWordBits;
  }
  return mask;
}

int KernelMode(NumaMode mode) noexcept {
  switch (mode) {
    case NumaMode::kPreferred:
      return kPreferredMany;
    case NumaMode::kBind:
      return MPOL_BIND;
    case NumaMode::kInterleave:
      return MPOL_INTERLEAVE;
    case NumaMode::kDefault:
      break;
  }
  return MPOL_DEFAULT;
}

// mbind and set_mempolicy by number: libnuma would be a dependency for four system calls.
long Mbind(std::span<std::byte> mapping, int mode, const NodeMask* mask) noexcept {
  return ::syscall(SYS_mbind, mapping.data(), mapping.size(), mode,
                   mask == nullptr ? nullptr : mask->words.data(),
                   mask == nullptr ? 0UL : NodeMask::kBits, 0U);
}

long SetMempolicy(int mode, const NodeMask* mask) noexcept {
  return ::syscall(SYS_set_mempolicy, mode, mask == nullptr ? nullptr : mask->words.data(),
                   mask == nullptr ? 0UL : NodeMask::kBits);
}

// The policy's mode at an address, or -1.
int ModeAt(const std::byte* address) noexcept {
  int mode = -1;
  const long result = ::syscall(SYS_get_mempolicy, &mode, nullptr, 0UL, address, MPOL_F_ADDR);
  return result == 0 ? mode : -1;
}

}  // namespace

Status SetNumaPolicy(std::span<std::byte> mapping, const NumaPolicy& policy) {
  if (policy.mode == NumaMode::kDefault) {
    if (Mbind(mapping, MPOL_DEFAULT, nullptr) == 0) return {};
    return FailErrno("mbind");
  }
  HF_TRY(const NodeMask mask, ToMask(policy));
  if (Mbind(mapping, KernelMode(policy.mode), &mask) != 0) return FailErrno("mbind");
  return {};
}

Result<bool> GuestMemfdTakesPolicy(const kvm::Vm& vm) {
  HF_TRY(const kvm::GuestMemfd memfd,
         kvm::GuestMemfd::Create(vm, kPageSize, kvm::GuestMemfd::Access::kHostShared));
  HF_TRY(const Mapping set, Mapping::MapFile(memfd.fd(), 0, kPageSize, PROT_READ, "guest_memfd"));
  HF_TRY(const Mapping seen, Mapping::MapFile(memfd.fd(), 0, kPageSize, PROT_READ, "guest_memfd"));
  // MPOL_LOCAL differs from the default and names no node that might not be there.
  constexpr int kLocal = 4;
  if (Mbind(set.bytes(), kLocal, nullptr) != 0) return false;
  return ModeAt(seen.data()) == kLocal;
}

Result<ThreadNumaPolicy> ThreadNumaPolicy::Set(const NumaPolicy& policy) {
  if (policy.mode == NumaMode::kDefault) return ThreadNumaPolicy(false);
  HF_TRY(const NodeMask mask, ToMask(policy));
  if (SetMempolicy(KernelMode(policy.mode), &mask) != 0) return FailErrno("set_mempolicy");
  return ThreadNumaPolicy(true);
}

ThreadNumaPolicy::~ThreadNumaPolicy() {
  if (set_) (void)SetMempolicy(MPOL_DEFAULT, nullptr);
}

}  // namespace holdfast
