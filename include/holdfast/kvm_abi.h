// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <cstddef>
#include <cstdint>

/// The part of KVM's ABI that the distribution's linux/kvm.h (Linux 6.1) does not have, or has in
/// a form C++ gets wrong. Names of our own, so that a newer linux/kvm.h does not clash. Each
/// definition says which kernel release introduced it; layouts are checked below.
///
/// Source: Documentation/virt/kvm/api.rst and include/uapi/linux/kvm.h of the named releases.
namespace holdfast::kvm::abi {

inline constexpr unsigned kIoctlType = 0xAE;  // KVMIO

// ---- Capabilities (KVM_CHECK_EXTENSION) -----------------------------------------------------
inline constexpr int kCapUserMemory2 = 231;       ///< Linux 6.8
inline constexpr int kCapMemoryFaultInfo = 232;   ///< Linux 6.8
inline constexpr int kCapMemoryAttributes = 233;  ///< Linux 6.8; answers the attributes' mask
inline constexpr int kCapGuestMemfd = 234;        ///< Linux 6.8
inline constexpr int kCapVmTypes = 235;           ///< Linux 6.8; answers a mask of VM types
inline constexpr int kCapPreFaultMemory = 236;    ///< Linux 6.11
inline constexpr int kCapGuestMemfdFlags = 244;   ///< Linux 6.18; answers the flags' mask

// ---- guest_memfd ------------------------------------------------------------------------------
/// The fd may be mapped by user space. Linux 6.18.
inline constexpr std::uint64_t kGuestMemfdFlagMmap = 1ULL << 0;
/// Every page starts as shared: the host may touch it. Linux 6.18.
inline constexpr std::uint64_t kGuestMemfdFlagInitShared = 1ULL << 1;

/// Argument of kCreateGuestMemfd (VM ioctl). Linux 6.8.
struct CreateGuestMemfd {
  std::uint64_t size;
  std::uint64_t flags;
  std::uint64_t reserved[6];
};
static_assert(sizeof(CreateGuestMemfd) == 64 && offsetof(CreateGuestMemfd, flags) == 8);

// ---- Memslots ---------------------------------------------------------------------------------
/// The slot is bound to a guest_memfd. Linux 6.8.
inline constexpr std::uint32_t kMemGuestMemfd = 1U << 2;

/// Argument of kSetUserMemoryRegion2 (VM ioctl). Linux 6.8.
struct UserspaceMemoryRegion2 {
  std::uint32_t slot;
  std::uint32_t flags;
  std::uint64_t guest_phys_addr;
  std::uint64_t memory_size;
  std::uint64_t userspace_addr;
  std::uint64_t guest_memfd_offset;
  std::uint32_t guest_memfd;
  std::uint32_t pad1;
  std::uint64_t pad2[14];
};
static_assert(sizeof(UserspaceMemoryRegion2) == 160);
static_assert(offsetof(UserspaceMemoryRegion2, guest_memfd_offset) == 32);
static_assert(offsetof(UserspaceMemoryRegion2, guest_memfd) == 40);

// ---- Attributes -------------------------------------------------------------------------------
inline constexpr std::uint64_t kMemoryAttributePrivate = 1ULL << 3;  ///< Linux 6.8

/// Argument of KVM_SET_MEMORY_ATTRIBUTES2 on a guest_memfd, as applied for Linux 7.4 (series v13);
/// no released kernel has it. Only used to find out whether the kernel knows the ioctl.
struct MemoryAttributes2 {
  std::uint64_t offset;
  std::uint64_t size;
  std::uint64_t attributes;
  std::uint64_t flags;
  std::uint64_t error_offset;
  std::uint64_t reserved[11];
};
static_assert(sizeof(MemoryAttributes2) == 128);

// ---- VM types (kCapVmTypes' bits) ---------------------------------------------------------------
inline constexpr unsigned kVmTypeDefault = 0;
inline constexpr unsigned kVmTypeSwProtected = 1;  ///< Linux 6.8, CONFIG_KVM_SW_PROTECTED_VM
inline constexpr unsigned kVmTypeSnp = 4;          ///< Linux 6.11
inline constexpr unsigned kVmTypeTdx = 5;          ///< Linux 6.16

// ---- Exits ------------------------------------------------------------------------------------
inline constexpr std::uint32_t kExitMemoryFault = 39;  ///< Linux 6.8

// ---- ioctl numbers of structs that end in a flexible array --------------------------------------
// sizeof() of such a struct is larger in C++ than in C when the array is declared through
// __DECLARE_FLEX_ARRAY (an empty struct has size 1), so the header's own KVM_GET_SUPPORTED_CPUID,
// KVM_SET_CPUID2, KVM_GET_MSRS … come out wrong and fail with EINVAL. These carry the C size.
inline constexpr unsigned kCpuid2HeaderSize = 8;
inline constexpr unsigned kMsrsHeaderSize = 8;
inline constexpr unsigned kMsrListHeaderSize = 4;
inline constexpr unsigned kIrqRoutingHeaderSize = 8;

}  // namespace holdfast::kvm::abi
