// SPDX-License-Identifier: Apache-2.0
#include "object/confidential_host.h"

#include <cpuid.h>
#include <fmt/format.h>
#include <sys/utsname.h>

#include <array>
#include <charconv>
#include <cstring>
#include <fstream>
#include <utility>

namespace holdfast::object {
namespace {

constexpr unsigned kEncryptionLeaf = 0x8000001f;

std::optional<std::string> Parameter(const char* path) {
  std::ifstream file(path);
  std::string text;
  if (!std::getline(file, text)) return std::nullopt;
  return text;
}

// The leading "MAJOR.MINOR" of a release; 0.0 where there is none.
std::pair<unsigned, unsigned> Release(std::string_view text) {
  unsigned major = 0;
  unsigned minor = 0;
  const char* const end = text.data() + text.size();
  const auto [dot, bad_major] = std::from_chars(text.data(), end, major);
  if (bad_major != std::errc{} || dot == end || *dot != '.') return {0, 0};
  std::from_chars(dot + 1, end, minor);
  return {major, minor};
}

bool IsOn(const std::optional<std::string>& parameter) {
  return parameter == "Y" || parameter == "1";
}

Status Missing(std::string_view type, std::string hint) {
  return Fail(Errc::kUnsupported, fmt::format("vm-type {} not supported by KVM", type),
              std::move(hint));
}

std::string Vendor(const ConfidentialHost& host) {
  return host.vendor.empty() ? "of an unknown maker" : fmt::format("'{}'", host.vendor);
}

}  // namespace

EncryptionBits ReadEncryptionBits() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid(kEncryptionLeaf, &eax, &ebx, &ecx, &edx) == 0) return {};
  return {.sev = (eax & 1U << 1) != 0, .snp = (eax & 1U << 4) != 0, .cbitpos = ebx & 0x3fU};
}

ConfidentialHost ReadConfidentialHost(const kvm::System& system) {
  ConfidentialHost host;
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid(0, &eax, &ebx, &ecx, &edx) != 0) {
    const std::array<unsigned, 3> words = {ebx, edx, ecx};
    std::array<char, sizeof words> text{};
    std::memcpy(text.data(), words.data(), sizeof words);
    host.vendor.assign(text.data(), text.size());
  }
  host.encryption = ReadEncryptionBits();
  utsname name{};
  if (::uname(&name) == 0) host.kernel = name.release;
  host.sev_snp_parameter = Parameter("/sys/module/kvm_amd/parameters/sev_snp");
  host.tdx_parameter = Parameter("/sys/module/kvm_intel/parameters/tdx");
  const int types = system.CheckExtension(kvm::abi::kCapVmTypes);
  host.vm_types = types > 0 ? static_cast<std::uint32_t>(types) : 0;
  return host;
}

Status CheckSnpHost(const ConfidentialHost& host) {
  constexpr std::string_view kType = "SEV-SNP";
  if ((host.vm_types >> kvm::abi::kVmTypeSnp & 1U) != 0) return {};
  if (host.vendor != "AuthenticAMD") {
    return Missing(kType, fmt::format("SEV-SNP is a feature of AMD's EPYC processors, from Milan "
                                      "on; this processor is {}.",
                                      Vendor(host)));
  }
  if (!host.encryption.sev || !host.encryption.snp) {
    return Missing(
        kType,
        fmt::format("This processor does not offer {} (CPUID 0x8000001f): it takes an EPYC from "
                    "Milan on with SMEE and SNP enabled in the firmware's settings, and no "
                    "hypervisor that hides it.",
                    host.encryption.sev ? "SEV-SNP" : "memory encryption"));
  }
  if (Release(host.kernel) < std::pair(6U, 11U)) {
    return Missing(kType, fmt::format("It needs Linux 6.11 or later; this is {}.", host.kernel));
  }
  if (!host.sev_snp_parameter) {
    return Missing(kType,
                   "The kernel's module kvm_amd has no parameter sev_snp: load it (modprobe "
                   "kvm_amd), or use a kernel built with CONFIG_KVM_AMD_SEV.");
  }
  if (!IsOn(host.sev_snp_parameter)) {
    return Missing(kType,
                   fmt::format("kvm_amd.sev_snp is {}: load the module with sev=1 sev_es=1 "
                               "sev_snp=1; if it stays so, the kernel's log says why (the IOMMU "
                               "must be on, and the firmware must have reserved memory for the "
                               "RMP table).",
                               *host.sev_snp_parameter));
  }
  return Missing(kType, "The kernel's log says what kvm_amd and ccp found wrong.");
}

Status CheckTdxHost(const ConfidentialHost& host) {
  constexpr std::string_view kType = "TDX";
  if ((host.vm_types >> kvm::abi::kVmTypeTdx & 1U) != 0) return {};
  if (host.vendor != "GenuineIntel") {
    return Missing(kType,
                   fmt::format("TDX is a feature of Intel's Xeon processors, from the fourth "
                               "generation on; this processor is {}.",
                               Vendor(host)));
  }
  if (Release(host.kernel) < std::pair(6U, 16U)) {
    return Missing(kType, fmt::format("It needs Linux 6.16 or later; this is {}.", host.kernel));
  }
  if (!host.tdx_parameter) {
    return Missing(kType,
                   "The kernel's module kvm_intel has no parameter tdx: load it (modprobe "
                   "kvm_intel), or use a kernel built with CONFIG_KVM_INTEL_TDX.");
  }
  if (!IsOn(host.tdx_parameter)) {
    return Missing(kType,
                   fmt::format("kvm_intel.tdx is {}: load the module with tdx=1; if it stays so, "
                               "the kernel's log says why (TDX must be enabled in the firmware's "
                               "settings, with its module).",
                               *host.tdx_parameter));
  }
  return Missing(kType, "The kernel's log says what kvm_intel and the TDX module found wrong.");
}

}  // namespace holdfast::object
