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
/// In-place conversion as applied for Linux 7.4 (series v13); answers the attributes' mask. The
/// number has moved with every version of the series, and released kernels use the earlier ones for
/// other things: only together with an ioctl that behaves does it say anything.
inline constexpr int kCapGuestMemfdMemoryAttributes = 252;

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

/// Argument of KVM_SET_MEMORY_ATTRIBUTES (VM ioctl). Linux 6.8.
struct MemoryAttributes {
  std::uint64_t address;  ///< guest physical
  std::uint64_t size;
  std::uint64_t attributes;
  std::uint64_t flags;  ///< must be 0
};
static_assert(sizeof(MemoryAttributes) == 32);

/// Argument of KVM_SET_MEMORY_ATTRIBUTES2 (guest_memfd ioctl), as applied for Linux 7.4 (series
/// v13); no released kernel has it.
struct MemoryAttributes2 {
  std::uint64_t offset;
  std::uint64_t size;
  std::uint64_t attributes;
  std::uint64_t flags;
  std::uint64_t error_offset;  ///< out, with EAGAIN and ENOMEM: the first page that refuses
  std::uint64_t reserved[11];  ///< must be 0
};
static_assert(sizeof(MemoryAttributes2) == 128);

/// Argument of KVM_PRE_FAULT_MEMORY (vCPU ioctl); the kernel moves gpa and size on to what is left.
/// Linux 6.11.
struct PreFaultMemory {
  std::uint64_t gpa;
  std::uint64_t size;
  std::uint64_t flags;  ///< must be 0
  std::uint64_t padding[5];
};
static_assert(sizeof(PreFaultMemory) == 64);

// ---- VM types (kCapVmTypes' bits) ---------------------------------------------------------------
inline constexpr unsigned kVmTypeDefault = 0;
inline constexpr unsigned kVmTypeSwProtected = 1;  ///< Linux 6.8, CONFIG_KVM_SW_PROTECTED_VM
inline constexpr unsigned kVmTypeSnp = 4;          ///< Linux 6.11
inline constexpr unsigned kVmTypeTdx = 5;          ///< Linux 6.16

// ---- Exits ------------------------------------------------------------------------------------
inline constexpr std::uint32_t kExitMemoryFault = 39;  ///< Linux 6.8
/// What kvm_run holds at a kExitMemoryFault, in its union.
struct MemoryFaultExit {
  std::uint64_t flags;
  std::uint64_t gpa;
  std::uint64_t size;
};
inline constexpr std::uint64_t kMemoryExitFlagPrivate = 1ULL << 3;  ///< the access was private

// ---- Hypercalls that leave KVM (KVM_CAP_EXIT_HYPERCALL) ---------------------------------------
inline constexpr std::uint32_t kCapExitHypercall = 201;  ///< Linux 5.14; takes and answers a mask
inline constexpr std::uint64_t kHypercallMapGpaRange = 12;  ///< KVM_HC_MAP_GPA_RANGE, Linux 5.14
/// Its third argument: the guest wants the range private. The low four bits are a page size, which
/// says nothing: the second argument counts 4 KiB pages.
inline constexpr std::uint64_t kMapGpaRangeEncrypted = 1ULL << 4;

// ---- ioctl numbers of structs that end in a flexible array --------------------------------------
// sizeof() of such a struct is larger in C++ than in C when the array is declared through
// __DECLARE_FLEX_ARRAY (an empty struct has size 1), so the header's own KVM_GET_SUPPORTED_CPUID,
// KVM_SET_CPUID2, KVM_GET_MSRS … come out wrong and fail with EINVAL. These carry the C size.
inline constexpr unsigned kCpuid2HeaderSize = 8;
inline constexpr unsigned kMsrsHeaderSize = 8;
inline constexpr unsigned kMsrListHeaderSize = 4;
inline constexpr unsigned kIrqRoutingHeaderSize = 8;
inline constexpr unsigned kXsaveHeaderSize = 4096;  // kvm_xsave: the part that always is there
inline constexpr unsigned kNestedStateHeaderSize = 128;

}  // namespace holdfast::kvm::abi
