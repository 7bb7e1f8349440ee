// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/kvm.h>

#include <cstddef>
#include <cstdint>

/// KVM's ABI for TDX guests (kMemoryEncryptOp of sev_abi.h, on a VM or a vCPU). Source:
/// arch/x86/include/uapi/asm/kvm.h and Documentation/virt/kvm/x86/intel-tdx.rst of Linux 7.3; all
/// of it came with Linux 6.16.
namespace holdfast::kvm::abi {

inline constexpr std::uint32_t kTdxCapabilities = 0;   ///< of a VM
inline constexpr std::uint32_t kTdxInitVm = 1;         ///< of a VM, before its first vCPU
inline constexpr std::uint32_t kTdxInitVcpu = 2;       ///< of a vCPU
inline constexpr std::uint32_t kTdxInitMemRegion = 3;  ///< of a vCPU
inline constexpr std::uint32_t kTdxFinalizeVm = 4;     ///< of a VM

/// Of kTdxInitMemRegion's flags: the contents go into the measurement, too.
inline constexpr std::uint32_t kTdxMeasure = 1U << 0;

/// Argument of kMemoryEncryptOp for TDX.
struct TdxCommand {
  std::uint32_t id;
  std::uint32_t flags;
  std::uint64_t data;      ///< address of the command's struct, or a number
  std::uint64_t hw_error;  ///< in: 0; out: the TDX module's status
};
static_assert(sizeof(TdxCommand) == 24);

// Both end in a kvm_cpuid2 whose entries follow; its own size is another in C++ (kvm_abi.h).
struct TdxCpuidHeader {
  std::uint32_t nent;
  std::uint32_t padding;
};
static_assert(sizeof(kvm_cpuid_entry2) == 40);

struct TdxCapabilities {
  std::uint64_t supported_attrs;
  std::uint64_t supported_xfam;
  std::uint64_t kernel_tdvmcallinfo_1_r11;
  std::uint64_t user_tdvmcallinfo_1_r11;
  std::uint64_t kernel_tdvmcallinfo_1_r12;
  std::uint64_t user_tdvmcallinfo_1_r12;
  std::uint64_t reserved[250];
  TdxCpuidHeader cpuid;
};
static_assert(sizeof(TdxCapabilities) == 2056 && offsetof(TdxCapabilities, cpuid) == 2048);

struct TdxInitVm {
  std::uint64_t attributes;
  std::uint64_t xfam;
  std::uint64_t mrconfigid[6];
  std::uint64_t mrowner[6];
  std::uint64_t mrownerconfig[6];
  std::uint64_t reserved[12];  ///< must be 0
  TdxCpuidHeader cpuid;
};
static_assert(sizeof(TdxInitVm) == 264 && offsetof(TdxInitVm, cpuid) == 256);

/// Of kTdxInitMemRegion; the kernel moves it on to what is left.
struct TdxMemRegion {
  std::uint64_t source_addr;  ///< 0: the page itself (in-place conversion, after Linux 7.3)
  std::uint64_t gpa;
  std::uint64_t nr_pages;
};
static_assert(sizeof(TdxMemRegion) == 24);

// TD attributes (TDX module base specification, ATTRIBUTES).
inline constexpr std::uint64_t kTdAttributeDebug = 1ULL << 0;
inline constexpr std::uint64_t kTdAttributeSeptVeDisable = 1ULL << 28;
inline constexpr std::uint64_t kTdAttributePks = 1ULL << 30;
inline constexpr std::uint64_t kTdAttributePerfmon = 1ULL << 63;

}  // namespace holdfast::kvm::abi
