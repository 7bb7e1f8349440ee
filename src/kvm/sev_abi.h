// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/ioctl.h>

#include <array>
#include <cstddef>
#include <cstdint>

#include <holdfast/kvm_abi.h>

/// KVM's ABI for SEV-SNP guests and that of the AMD secure processor's device. Names of our own, as
/// in kvm_abi.h. Source: arch/x86/include/uapi/asm/kvm.h, include/uapi/linux/psp-sev.h and
/// Documentation/virt/kvm/x86/amd-memory-encryption.rst of Linux 7.3; SEV-SNP firmware ABI 1.57.
namespace holdfast::kvm::abi {

/// VM ioctl for SEV, VM and vCPU ioctl for TDX. The number's size field is not that of its
/// argument.
inline constexpr unsigned long kMemoryEncryptOp = _IOWR(kIoctlType, 0xba, unsigned long);
static_assert(kMemoryEncryptOp == 0xc008aebaUL);

inline constexpr std::uint32_t kSevInit2 = 22;          ///< Linux 6.10
inline constexpr std::uint32_t kSnpLaunchStart = 100;   ///< Linux 6.11
inline constexpr std::uint32_t kSnpLaunchUpdate = 101;  ///< Linux 6.11
inline constexpr std::uint32_t kSnpLaunchFinish = 102;  ///< Linux 6.11

/// Argument of kMemoryEncryptOp for SEV. Linux 4.16.
struct SevCommand {
  std::uint32_t id;
  std::uint32_t pad0;
  std::uint64_t data;   ///< address of the command's struct
  std::uint32_t error;  ///< out: the firmware's status; kSevNoFirmwareCall: it was not asked
  std::uint32_t sev_fd;
};
static_assert(sizeof(SevCommand) == 24 && offsetof(SevCommand, error) == 16);
inline constexpr std::uint32_t kSevNoFirmwareCall = 0xffffffff;

/// Of kSevInit2. Linux 6.10.
struct SevInit {
  std::uint64_t vmsa_features;
  std::uint32_t flags;         ///< must be 0
  std::uint16_t ghcb_version;  ///< 0: the highest there is
  std::uint16_t pad1;
  std::uint32_t pad2[8];
};
static_assert(sizeof(SevInit) == 48 && offsetof(SevInit, ghcb_version) == 12);

/// Of kSnpLaunchStart. Linux 6.11.
struct SnpLaunchStart {
  std::uint64_t policy;
  std::array<std::byte, 16> gosvw;  ///< guest OS visible workarounds
  std::uint16_t flags;              ///< must be 0
  std::uint8_t pad0[6];
  std::uint64_t pad1[4];
};
static_assert(sizeof(SnpLaunchStart) == 64 && offsetof(SnpLaunchStart, flags) == 24);

/// Types of pages that kSnpLaunchUpdate takes.
inline constexpr std::uint8_t kSnpPageNormal = 1;
inline constexpr std::uint8_t kSnpPageZero = 3;
inline constexpr std::uint8_t kSnpPageUnmeasured = 4;
inline constexpr std::uint8_t kSnpPageSecrets = 5;
inline constexpr std::uint8_t kSnpPageCpuid = 6;

/// Of kSnpLaunchUpdate. The kernel may do a part only and moves the first three on. Linux 6.11.
struct SnpLaunchUpdate {
  std::uint64_t gfn_start;
  std::uint64_t uaddr;  ///< 0: the page itself (in-place conversion, as applied for Linux 7.4)
  std::uint64_t len;
  std::uint8_t type;
  std::uint8_t pad0;
  std::uint16_t flags;  ///< must be 0
  std::uint32_t pad1;
  std::uint64_t pad2[4];
};
static_assert(sizeof(SnpLaunchUpdate) == 64 && offsetof(SnpLaunchUpdate, type) == 24);

inline constexpr std::size_t kSnpIdBlockSize = 96;
inline constexpr std::size_t kSnpIdAuthSize = 4096;
inline constexpr std::size_t kSnpHostDataSize = 32;

/// Of kSnpLaunchFinish. Linux 6.11.
struct SnpLaunchFinish {
  std::uint64_t id_block_uaddr;
  std::uint64_t id_auth_uaddr;
  std::uint8_t id_block_en;
  std::uint8_t auth_key_en;
  std::uint8_t vcek_disabled;
  std::array<std::byte, kSnpHostDataSize> host_data;
  std::uint8_t pad0[3];
  std::uint16_t flags;  ///< must be 0
  std::uint64_t pad1[4];
};
static_assert(sizeof(SnpLaunchFinish) == 88 && offsetof(SnpLaunchFinish, host_data) == 19 &&
              offsetof(SnpLaunchFinish, flags) == 54);

// ---- The CPUID page: what the firmware checks and the guest then trusts ------------------------
inline constexpr std::size_t kSnpCpuidMost = 64;

struct SnpCpuidEntry {
  std::uint32_t eax_in;
  std::uint32_t ecx_in;
  std::uint64_t xcr0_in;
  std::uint64_t xss_in;
  std::uint32_t eax;
  std::uint32_t ebx;
  std::uint32_t ecx;
  std::uint32_t edx;
  std::uint64_t reserved;
};
static_assert(sizeof(SnpCpuidEntry) == 48);

/// SEV-SNP firmware ABI, section 8.17.2.6 and PPR: count, then the functions.
struct SnpCpuidPage {
  std::uint32_t count;
  std::uint32_t reserved1;
  std::uint64_t reserved2;
  std::array<SnpCpuidEntry, kSnpCpuidMost> entries;
  std::array<std::byte, 4096 - 16 - kSnpCpuidMost * sizeof(SnpCpuidEntry)> rest;
};
static_assert(sizeof(SnpCpuidPage) == 4096 && offsetof(SnpCpuidPage, entries) == 16);

// ---- /dev/sev ----------------------------------------------------------------------------------
inline constexpr unsigned long kSevIssueCommand = _IOC(_IOC_READ | _IOC_WRITE, 'S', 0, 16);

inline constexpr std::uint32_t kSevPlatformStatus = 1;  ///< SEV_PLATFORM_STATUS
inline constexpr std::uint32_t kSevPdhCertExport = 5;   ///< SEV_PDH_CERT_EXPORT
inline constexpr std::uint32_t kSevGetId2 = 8;          ///< SEV_GET_ID2
inline constexpr std::uint32_t kSnpPlatformStatus = 9;  ///< SNP_PLATFORM_STATUS

inline constexpr std::uint32_t kSevInvalidLength = 4;  ///< the firmware's status
inline constexpr std::uint32_t kSevInvalidParameter = 0x16;

struct __attribute__((packed)) SevIssueCommand {
  std::uint32_t cmd;
  std::uint64_t data;
  std::uint32_t error;
};
static_assert(sizeof(SevIssueCommand) == 16);

struct __attribute__((packed)) SevPdhCertExport {
  std::uint64_t pdh_address;
  std::uint32_t pdh_length;  ///< in and out
  std::uint64_t chain_address;
  std::uint32_t chain_length;  ///< in and out
};
static_assert(sizeof(SevPdhCertExport) == 24);

struct __attribute__((packed)) SevGetId2 {
  std::uint64_t address;
  std::uint32_t length;  ///< in and out
};
static_assert(sizeof(SevGetId2) == 12);

/// The leading part of what SNP_PLATFORM_STATUS answers.
struct __attribute__((packed)) SnpPlatformStatus {
  std::uint8_t api_major;
  std::uint8_t api_minor;
  std::uint8_t state;
  std::uint8_t rmp_initialized;  ///< bit 0
  std::uint32_t build_id;
  std::uint32_t flags;
  std::uint32_t guest_count;
  std::uint64_t current_tcb_version;
  std::uint64_t reported_tcb_version;
};
static_assert(sizeof(SnpPlatformStatus) == 32);

}  // namespace holdfast::kvm::abi
