// SPDX-License-Identifier: Apache-2.0
// The ABI header against the running kernel: numbers as published, and calls that a wrong number
// or size would fail.
#include <gtest/gtest.h>
#include <holdfast/kvm_abi.h>

#include "kvm/ioctl.h"
#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

TEST(KvmAbi, IoctlNumbersAreTheKernels) {
  // From include/uapi/linux/kvm.h compiled as C on x86-64.
  const struct {
    const char* name;
    unsigned long ours, kernel;
  } cases[] = {
      {"KVM_GET_API_VERSION", kvm::kGetApiVersion.number, 0xae00},
      {"KVM_CREATE_VM", kvm::kCreateVm.number, 0xae01},
      {"KVM_CHECK_EXTENSION", kvm::kCheckExtension.number, 0xae03},
      {"KVM_GET_SUPPORTED_CPUID", kvm::kGetSupportedCpuid.number, 0xc008ae05},
      {"KVM_GET_MSR_INDEX_LIST", kvm::kGetMsrIndexList.number, 0xc004ae02},
      {"KVM_SET_USER_MEMORY_REGION2", kvm::kSetUserMemoryRegion2.number, 0x40a0ae49},
      {"KVM_CREATE_GUEST_MEMFD", kvm::kCreateGuestMemfd.number, 0xc040aed4},
      {"KVM_RUN", kvm::kRun.number, 0xae80},
      {"KVM_GET_REGS", kvm::kGetRegs.number, 0x8090ae81},
      {"KVM_SET_REGS", kvm::kSetRegs.number, 0x4090ae82},
      {"KVM_GET_SREGS", kvm::kGetSregs.number, 0x8138ae83},
      {"KVM_SET_SREGS", kvm::kSetSregs.number, 0x4138ae84},
      {"KVM_SET_CPUID2", kvm::kSetCpuid2.number, 0x4008ae90},
      {"KVM_GET_MSRS", kvm::kGetMsrs.number, 0xc008ae88},
      {"KVM_SET_MSRS", kvm::kSetMsrs.number, 0x4008ae89},
      {"KVM_GET_LAPIC", kvm::kGetLapic.number, 0x8400ae8e},
      {"KVM_SET_LAPIC", kvm::kSetLapic.number, 0x4400ae8f},
      {"KVM_GET_IRQCHIP", kvm::kGetIrqchip.number, 0xc208ae62},
      {"KVM_SET_IRQCHIP", kvm::kSetIrqchip.number, 0x8208ae63},
      {"KVM_CREATE_PIT2", kvm::kCreatePit2.number, 0x4040ae77},
      {"KVM_IRQ_LINE", kvm::kIrqLine.number, 0x4008ae61},
      {"KVM_ENABLE_CAP", kvm::kEnableCap.number, 0x4068aea3},
  };
  for (const auto& c : cases) EXPECT_EQ(c.ours, c.kernel) << c.name;
}

using KvmAbiOnHost = KvmTest;

TEST_F(KvmAbiOnHost, ListsThatEndInAFlexibleArrayComeBackFilled) {
  // With C++'s idea of these structs' sizes the kernel answers EINVAL.
  const auto cpuid = system().SupportedCpuid();
  ASSERT_OK(cpuid);
  ASSERT_FALSE(cpuid->empty());
  EXPECT_EQ((*cpuid)[0].function, 0U);
  EXPECT_GE((*cpuid)[0].eax, 1U);  // the highest leaf
  const auto msrs = system().MsrIndexList();
  ASSERT_OK(msrs);
  EXPECT_FALSE(msrs->empty());
}

TEST_F(KvmAbiOnHost, RefusesADeviceThatIsNotKvm) {
  const auto other = kvm::System::Open("/dev/null");
  ASSERT_FALSE(other.has_value());
  EXPECT_EQ(other.error().code(), Errc::kUnsupported);
  EXPECT_EQ(other.error().message(), "'/dev/null' is not a KVM device");
}

}  // namespace
}  // namespace holdfast::test
