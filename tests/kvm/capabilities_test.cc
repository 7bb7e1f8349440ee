// SPDX-License-Identifier: Apache-2.0
// Capabilities are what the kernel says, each for itself. A seccomp filter plays the kernels that
// lack one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/capabilities.h>
#include <holdfast/guest_memfd.h>
#include <sys/ioctl.h>

#include <set>

#include "support/kvm_fixture.h"
#include "support/old_kernel.h"

namespace holdfast::test {
namespace {

using kvm::abi::kCapGuestMemfd;
using kvm::abi::kCapGuestMemfdFlags;
using kvm::abi::kCapMemoryAttributes;
using kvm::abi::kCapMemoryFaultInfo;
using kvm::abi::kCapPreFaultMemory;
using kvm::abi::kCapUserMemory2;
using kvm::abi::kCapVmTypes;

class CapabilitiesTest : public KvmTest {
 protected:
  int Ask(int fd, int capability) const { return ::ioctl(fd, KVM_CHECK_EXTENSION, capability); }

  // What Detect finds where the kernel lacks `hidden`.
  kvm::Capabilities DetectWithout(std::initializer_list<int> hidden) {
    kvm::Capabilities found;
    const std::vector<int> list(hidden);
    EXPECT_TRUE(RunWithoutKvmCapabilities(list, [&] {
      const auto detected = kvm::Capabilities::Detect(system());
      EXPECT_OK(detected);
      if (detected) found = *detected;
    })) << "no seccomp filters on this kernel";
    return found;
  }
};

// The rows that are available, by id.
std::set<std::string> Available(const kvm::Capabilities& capabilities) {
  std::set<std::string> ids;
  for (const kvm::CapabilityRow& row : kvm::Describe(capabilities))
    if (row.available) ids.emplace(row.id);
  return ids;
}

TEST_F(CapabilitiesTest, AgreeWithTheKernel) {
  const kvm::Capabilities& c = capabilities();
  const int host = system().fd();
  const int guest = vm().fd();
  EXPECT_EQ(c.guest_memfd, Ask(guest, kCapGuestMemfd) > 0);
  EXPECT_EQ(c.guest_memfd_flags, static_cast<unsigned>(Ask(guest, kCapGuestMemfdFlags)));
  EXPECT_EQ(c.user_memory2, Ask(guest, kCapUserMemory2) > 0);
  EXPECT_EQ(c.memory_fault_info, Ask(guest, kCapMemoryFaultInfo) > 0);
  EXPECT_EQ(c.memory_attributes, static_cast<unsigned>(Ask(host, kCapMemoryAttributes)));
  EXPECT_EQ(c.pre_fault_memory, Ask(guest, kCapPreFaultMemory) > 0);
  EXPECT_EQ(c.vm_types, static_cast<unsigned>(Ask(host, kCapVmTypes)) | 1U);
  EXPECT_EQ(c.irqchip, Ask(guest, KVM_CAP_IRQCHIP) > 0);
  EXPECT_EQ(c.max_vcpus, static_cast<unsigned>(Ask(guest, KVM_CAP_MAX_VCPUS)));
  EXPECT_EQ(c.max_memslots, static_cast<unsigned>(Ask(guest, KVM_CAP_NR_MEMSLOTS)));
}

TEST_F(CapabilitiesTest, NumaPolicyCameWith6_19) {
  EXPECT_EQ(capabilities().guest_memfd_mempolicy, KernelRelease() >= std::pair(6, 19));
}

TEST_F(CapabilitiesTest, OneMissingSaysNothingAboutTheOthers) {
  const struct {
    const char* missing;
    int capability;
    std::set<std::string> rows;  // those that go with it
  } cases[] = {
      {"VM-level attributes", kCapMemoryAttributes, {"memory_attributes"}},
      {"memory fault exits", kCapMemoryFaultInfo, {"memory_fault_info"}},
      {"pre-fault", kCapPreFaultMemory, {"pre_fault_memory"}},
      {"user memory 2", kCapUserMemory2, {"user_memory2"}},
      {"VM types", kCapVmTypes, {"vm_sw_protected", "vm_sev_snp", "vm_tdx"}},
      {"manual dirty log", KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, {"manual_dirty_log"}},
      {"irqchip", KVM_CAP_IRQCHIP, {"irqchip"}},
      {"a capability of no interest", KVM_CAP_XEN_HVM, {}},
  };
  const std::set<std::string> all = Available(capabilities());
  for (const auto& c : cases) {
    SCOPED_TRACE(c.missing);
    std::set<std::string> rest = all;
    for (const std::string& row : c.rows) rest.erase(row);
    EXPECT_EQ(Available(DetectWithout({c.capability})), rest);
  }
}

TEST_F(CapabilitiesTest, GuestsNeedNeitherPrivateAttributesNorFaultInfoNorPrefault) {
  const kvm::Capabilities poor = DetectWithout(
      {kCapMemoryAttributes, kCapMemoryFaultInfo, kCapPreFaultMemory, kCapVmTypes,
       KVM_CAP_DIRTY_LOG_RING, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2});
  EXPECT_TRUE(poor.CanRunOnGuestMemfd());
  EXPECT_EQ(poor.dirty_ring_bytes, 0U);
  EXPECT_EQ(poor.vm_types, 1U);
}

TEST_F(CapabilitiesTest, GuestsNeedWhatTheyNeed) {
  for (const int capability :
       {kCapGuestMemfd, kCapGuestMemfdFlags, kCapUserMemory2, static_cast<int>(KVM_CAP_IRQCHIP)}) {
    EXPECT_FALSE(DetectWithout({capability}).CanRunOnGuestMemfd()) << "without " << capability;
  }
}

TEST_F(CapabilitiesTest, MissingGuestMemfdIsSaidInTheAgreedWords) {
  const struct {
    int hidden;
    kvm::GuestMemfd::Access access;
    const char* message;
  } cases[] = {
      {kCapGuestMemfd, kvm::GuestMemfd::Access::kPrivate, "KVM does not support guest_memfd"},
      {kCapGuestMemfd, kvm::GuestMemfd::Access::kHostShared, "KVM does not support guest_memfd"},
      {kCapGuestMemfdFlags, kvm::GuestMemfd::Access::kHostShared,
       "KVM does not support using guest_memfd for shared memory"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.hidden);
    const std::vector hidden = {c.hidden};
    ASSERT_TRUE(RunWithoutKvmCapabilities(hidden, [&] {
      const auto memfd = kvm::GuestMemfd::Create(vm(), kPageSize, c.access);
      ASSERT_FALSE(memfd.has_value());
      EXPECT_EQ(memfd.error().code(), Errc::kUnsupported);
      EXPECT_EQ(memfd.error().message(), c.message);
      EXPECT_THAT(memfd.error().hint(), ::testing::HasSubstr("It needs Linux 6."));
    }));
  }
}

TEST_F(CapabilitiesTest, TableHasOneFullRowForEachFeature) {
  std::set<std::string_view> ids;
  for (const kvm::CapabilityRow& row : kvm::Describe(capabilities())) {
    EXPECT_TRUE(ids.insert(row.id).second) << "twice: " << row.id;
    EXPECT_FALSE(row.feature.empty() || row.needs.empty() || row.without.empty()) << row.id;
  }
  EXPECT_GE(ids.size(), 10U);
}

}  // namespace
}  // namespace holdfast::test
