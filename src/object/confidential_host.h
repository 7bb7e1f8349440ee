// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include <holdfast/error.h>
#include <holdfast/kvm_system.h>

namespace holdfast::object {

/// What this processor says of memory encryption (CPUID 0x8000001f). Any thread.
struct EncryptionBits {
  bool sev = false;
  bool snp = false;
  std::uint32_t cbitpos = 0;
};
EncryptionBits ReadEncryptionBits();

/// What of this host decides whether it can run guests of SEV-SNP or TDX.
struct ConfidentialHost {
  std::string vendor;  ///< CPUID 0: "AuthenticAMD", "GenuineIntel", …
  EncryptionBits encryption;
  std::string kernel;  ///< uname's release
  /// What /sys/module/kvm_amd/parameters/sev_snp and …/kvm_intel/parameters/tdx say; nothing: the
  /// module is not there, or has no such parameter.
  std::optional<std::string> sev_snp_parameter;
  std::optional<std::string> tdx_parameter;
  std::uint32_t vm_types = 0;  ///< kCapVmTypes' mask
};

/// Looks at this host. Any thread.
ConfidentialHost ReadConfidentialHost(const kvm::System& system);

/// Whether KVM makes VMs of SEV-SNP here. @return kUnsupported: QEMU's sentence, and the first
/// thing that is missing with what to do about it
Status CheckSnpHost(const ConfidentialHost& host);
/// The same for TDX.
Status CheckTdxHost(const ConfidentialHost& host);

}  // namespace holdfast::object
