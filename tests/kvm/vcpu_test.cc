// SPDX-License-Identifier: Apache-2.0
// A vCPU's state goes in and comes out, and running it can be interrupted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/vcpu.h>

#include <array>

#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

class VcpuTest : public KvmTest {
 protected:
  void SetUp() override {
    KvmTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    auto vcpu = kvm::Vcpu::Create(vm(), 0);
    ASSERT_OK(vcpu);
    vcpu_ = *std::move(vcpu);
    const auto cpuid = system().SupportedCpuid();
    ASSERT_OK(cpuid);
    ASSERT_OK(vcpu_->SetCpuid(*cpuid));
  }
  std::optional<kvm::Vcpu> vcpu_;
};

TEST_F(VcpuTest, ExitRequestEndsTheNextRunUntilItIsCleared) {
  vcpu_->RequestExit();
  for (int i = 0; i < 2; ++i) {
    const auto outcome = vcpu_->Run();
    ASSERT_OK(outcome);
    EXPECT_EQ(*outcome, kvm::Vcpu::RunOutcome::kInterrupted);
  }
  vcpu_->ClearExitRequest();
  EXPECT_EQ(vcpu_->run().immediate_exit, 0);
}

TEST_F(VcpuTest, RegistersComeBackAsSet) {
  kvm_regs regs{};
  regs.rax = 0x1122334455667788;
  regs.r15 = ~0ULL;
  regs.rip = 0x1000;
  regs.rflags = 2;
  ASSERT_OK(vcpu_->SetRegs(regs));
  const auto back = vcpu_->GetRegs();
  ASSERT_OK(back);
  EXPECT_EQ(back->rax, regs.rax);
  EXPECT_EQ(back->r15, regs.r15);
  EXPECT_EQ(back->rip, regs.rip);
}

TEST_F(VcpuTest, UnknownMsrsAreLeftOutOfTheAnswer) {
  constexpr std::uint32_t kTsc = 0x10;
  constexpr std::uint32_t kPat = 0x277;
  constexpr std::uint32_t kNone = 0x3fffffff;
  const auto msrs = vcpu_->GetMsrs(std::array{kTsc, kNone, kPat, kNone, kNone});
  ASSERT_OK(msrs);
  ASSERT_EQ(msrs->size(), 2U);
  EXPECT_EQ((*msrs)[0].index, kTsc);
  EXPECT_EQ((*msrs)[1].index, kPat);
}

TEST_F(VcpuTest, MoreMsrsThanKvmTakesAtOnceAreRead) {
  std::vector<std::uint32_t> many(1000, 0x10);
  many.insert(many.begin() + 300, 0x3fffffff);  // there is none
  const auto msrs = vcpu_->GetMsrs(many);
  ASSERT_OK(msrs);
  EXPECT_EQ(msrs->size(), 1000U);
}

TEST_F(VcpuTest, AnMsrThatKvmRefusesIsNamed) {
  kvm_msr_entry entry{};
  entry.index = 0x3fffffff;
  const Status status = vcpu_->SetMsrs(std::array{entry});
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().message(), "KVM refuses to set MSR 0x3fffffff of vCPU 0");
}

TEST_F(VcpuTest, TranslatesAsItsPageTablesSay) {
  const auto plain = vcpu_->Translate(0x1234);
  ASSERT_OK(plain);
  EXPECT_EQ(*plain, 0x1234U) << "without paging an address is what it is";
  auto sregs = vcpu_->GetSregs();
  ASSERT_OK(sregs);
  // Long mode, and page tables where there is no memory.
  sregs->cr0 |= 0x80000001;
  sregs->cr3 = 0x10000;
  sregs->cr4 |= 0x20;
  sregs->efer |= 0x500;
  sregs->cs.l = 1;
  sregs->cs.db = 0;
  ASSERT_OK(vcpu_->SetSregs(*sregs));
  const auto unmapped = vcpu_->Translate(0x1234);
  ASSERT_OK(unmapped);
  EXPECT_EQ(*unmapped, std::nullopt);
}

TEST_F(VcpuTest, AnIdCanBeUsedOnce) {
  const auto again = kvm::Vcpu::Create(vm(), 0);
  EXPECT_EQ(ErrnoOf(again), EEXIST);
  EXPECT_EQ(vcpu_->id(), 0U);
}

TEST_F(VcpuTest, BelongsToTheVmsProcess) {
  // Another address space may not drive a VM; live upgrade builds on knowing this.
  EXPECT_EXIT(
      {
        const auto regs = vcpu_->GetRegs();
        std::_Exit(ErrnoOf(regs) == EIO ? 0 : 1);
      },
      ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace holdfast::test
