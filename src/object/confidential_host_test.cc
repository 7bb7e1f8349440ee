// SPDX-License-Identifier: Apache-2.0
#include "object/confidential_host.h"

#include <gmock/gmock.h>

namespace holdfast::object {
namespace {

using ::testing::HasSubstr;

// A host on which everything is there but what a test takes away.
ConfidentialHost Good(const char* vendor) {
  ConfidentialHost host;
  host.vendor = vendor;
  host.encryption = {.sev = true, .snp = true, .cbitpos = 51};
  host.kernel = "7.3.4+deb13-amd64";
  host.sev_snp_parameter = host.tdx_parameter = "Y";
  return host;
}

struct Case {
  const char* name;
  void (*change)(ConfidentialHost&);
  const char* hint;
};

TEST(ConfidentialHostTest, SnpSaysTheFirstThingThatIsMissing) {
  const Case cases[] = {
      {"Intel", [](auto& h) { h.vendor = "GenuineIntel"; },
       "SEV-SNP is a feature of AMD's EPYC processors, from Milan on; this processor is "
       "'GenuineIntel'."},
      {"nobody's", [](auto& h) { h.vendor.clear(); }, "this processor is of an unknown maker."},
      {"no encryption", [](auto& h) { h.encryption = {}; },
       "This processor does not offer memory encryption (CPUID 0x8000001f)"},
      {"SEV only", [](auto& h) { h.encryption.snp = false; },
       "This processor does not offer SEV-SNP (CPUID"},
      {"old kernel", [](auto& h) { h.kernel = "6.10.11-amd64"; },
       "It needs Linux 6.11 or later; this is 6.10.11-amd64."},
      {"odd kernel", [](auto& h) { h.kernel = "six"; },
       "It needs Linux 6.11 or later; this is six."},
      {"no module", [](auto& h) { h.sev_snp_parameter.reset(); },
       "kvm_amd has no parameter sev_snp: load it (modprobe kvm_amd)"},
      {"switched off", [](auto& h) { h.sev_snp_parameter = "N"; }, "kvm_amd.sev_snp is N: load"},
      {"something else", [](auto&) {}, "The kernel's log says what kvm_amd and ccp found wrong."},
  };
  for (const Case& c : cases) {
    ConfidentialHost host = Good("AuthenticAMD");
    c.change(host);
    const Status checked = CheckSnpHost(host);
    ASSERT_FALSE(checked) << c.name;
    EXPECT_EQ(checked.error().code(), Errc::kUnsupported);
    EXPECT_EQ(checked.error().message(), "vm-type SEV-SNP not supported by KVM");
    EXPECT_THAT(checked.error().hint(), HasSubstr(c.hint)) << c.name;
  }
}

TEST(ConfidentialHostTest, TdxSaysTheFirstThingThatIsMissing) {
  const Case cases[] = {
      {"AMD", [](auto& h) { h.vendor = "AuthenticAMD"; },
       "TDX is a feature of Intel's Xeon processors, from the fourth generation on; this processor "
       "is 'AuthenticAMD'."},
      {"old kernel", [](auto& h) { h.kernel = "6.12.107"; },
       "It needs Linux 6.16 or later; this is 6.12.107."},
      {"no module", [](auto& h) { h.tdx_parameter.reset(); },
       "kvm_intel has no parameter tdx: load it (modprobe kvm_intel)"},
      {"switched off", [](auto& h) { h.tdx_parameter = "N"; }, "kvm_intel.tdx is N: load"},
      {"something else", [](auto&) {}, "The kernel's log says what kvm_intel and the TDX module"},
  };
  for (const Case& c : cases) {
    ConfidentialHost host = Good("GenuineIntel");
    c.change(host);
    const Status checked = CheckTdxHost(host);
    ASSERT_FALSE(checked) << c.name;
    EXPECT_EQ(checked.error().message(), "vm-type TDX not supported by KVM");
    EXPECT_THAT(checked.error().hint(), HasSubstr(c.hint)) << c.name;
  }
}

TEST(ConfidentialHostTest, WhatKvmOffersIsEnough) {
  ConfidentialHost host;
  host.vm_types = 1U << kvm::abi::kVmTypeSnp;
  EXPECT_TRUE(CheckSnpHost(host));
  EXPECT_FALSE(CheckTdxHost(host));
  host.vm_types = 1U << kvm::abi::kVmTypeTdx;
  EXPECT_TRUE(CheckTdxHost(host));
  EXPECT_FALSE(CheckSnpHost(host));
}

}  // namespace
}  // namespace holdfast::object
