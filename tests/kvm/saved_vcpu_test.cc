// SPDX-License-Identifier: Apache-2.0
// Every class of a vCPU's registers comes back in a vCPU of another VM.
#include "machine/saved_vcpu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/vcpu.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>

#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

using machine::SavedVcpu;
using machine::VcpuAbilities;
using ::testing::HasSubstr;

constexpr std::uint32_t kStar = 0xc0000081;
constexpr std::uint32_t kLstar = 0xc0000082;
constexpr std::uint32_t kPat = 0x277;

template <typename T>
bool SameBytes(const Result<T>& a, const Result<T>& b) {
  return a && b && std::memcmp(&*a, &*b, sizeof(T)) == 0;
}

class SavedVcpuTest : public KvmTest {
 protected:
  struct Side {
    std::optional<kvm::Vm> vm;
    std::optional<kvm::Vcpu> vcpu;
    VcpuAbilities abilities;
    std::vector<kvm_cpuid_entry2> cpuid;
  };

  void SetUp() override {
    KvmTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    ASSERT_NO_FATAL_FAILURE(Make(from_));
    ASSERT_NO_FATAL_FAILURE(Make(to_));
  }
  void Make(Side& side) {
    auto vm = kvm::Vm::Create(system());
    ASSERT_OK(vm);
    side.vm.emplace(*std::move(vm));
    ASSERT_OK(side.vm->CreateIrqchip());
    auto vcpu = kvm::Vcpu::Create(*side.vm, 0);
    ASSERT_OK(vcpu);
    side.vcpu.emplace(*std::move(vcpu));
    auto cpuid = system().SupportedCpuid();
    ASSERT_OK(cpuid);
    side.cpuid = *std::move(cpuid);
    ASSERT_OK(side.vcpu->SetCpuid(side.cpuid));
    auto abilities = VcpuAbilities::Of(system(), *side.vm);
    ASSERT_OK(abilities);
    side.abilities = *std::move(abilities);
  }

  std::vector<std::byte> Save(Side& side) {
    auto saved = SavedVcpu::Take(*side.vcpu, side.abilities, side.cpuid);
    EXPECT_OK(saved);
    if (!saved) return {};
    state::Fields fields(1);
    saved->VisitState(fields);
    return std::move(fields).Take();
  }
  Status Load(Side& side, std::span<const std::byte> bytes) {
    SavedVcpu loaded;
    state::Fields fields(1, bytes);
    loaded.VisitState(fields);
    HF_TRY_STATUS(fields.status());
    std::optional<SavedVcpu::TscReference> reference;
    return loaded.Restore(*side.vcpu, side.abilities, side.cpuid, reference);
  }
  // From one to the other.
  void Move() { ASSERT_OK(Load(to_, Save(from_))); }

  std::uint64_t Msr(Side& side, std::uint32_t index) {
    const auto read = side.vcpu->GetMsrs({&index, 1});
    return read && read->size() == 1 ? read->front().data : ~0ULL;
  }

  Side from_;
  Side to_;
};

TEST_F(SavedVcpuTest, GeneralAndSpecialRegisters) {
  auto regs = from_.vcpu->GetRegs();
  ASSERT_OK(regs);
  regs->rax = 0x1111111111111111;
  regs->r8 = 0x8888888888888888;
  regs->r15 = ~0ULL;
  regs->rip = 0x7ffff000;
  regs->rflags = 0x202;
  ASSERT_OK(from_.vcpu->SetRegs(*regs));
  auto sregs = from_.vcpu->GetSregs();
  ASSERT_OK(sregs);
  // 64-bit mode, as a kernel has it.
  sregs->cr0 = 0x80000011;
  sregs->cr2 = 0xdeadb000;
  sregs->cr3 = 0x5000;
  sregs->cr4 = 0x20;
  sregs->cr8 = 3;
  sregs->efer = 0x501;
  sregs->fs.base = 0x7f0000001000;
  sregs->gs.base = 0xffff888000000000;
  sregs->cs.l = 1;
  sregs->cs.db = 0;
  sregs->gdt = {.base = 0xfffffe0000001000, .limit = 0x7f, .padding = {}};
  sregs->idt = {.base = 0xfffffe0000000000, .limit = 0xfff, .padding = {}};
  ASSERT_OK(from_.vcpu->SetSregs(*sregs));
  const auto want_regs = from_.vcpu->GetRegs();
  const auto want_sregs = from_.vcpu->GetSregs();
  ASSERT_NO_FATAL_FAILURE(Move());
  EXPECT_TRUE(SameBytes(want_regs, to_.vcpu->GetRegs()));
  EXPECT_TRUE(SameBytes(want_sregs, to_.vcpu->GetSregs()));
  EXPECT_EQ(to_.vcpu->GetSregs()->gs.base, 0xffff888000000000);
}

// Places in an XSAVE area: SDM vol. 1, 10.5.1, 13.4.2 and, for AVX, 13.4.3.
constexpr std::size_t kMxcsr = 24;
constexpr std::size_t kXmm = 160;
constexpr std::size_t kHeader = 512;
constexpr std::size_t kYmmHigh = 576;

TEST_F(SavedVcpuTest, FpuAndVectorRegisters) {
  const bool avx = from_.abilities.xcrs && std::ranges::any_of(from_.cpuid, [](const auto& leaf) {
                     return leaf.function == 0xd && leaf.index == 0 && (leaf.eax & 4) != 0;
                   });
  if (avx) {
    auto xcrs = from_.vcpu->GetXcrs();
    ASSERT_OK(xcrs);
    xcrs->xcrs[0].value = 7;
    ASSERT_OK(from_.vcpu->SetXcrs(*xcrs));
  }
  auto area = from_.vcpu->GetXsave(from_.abilities.xsave_size);
  ASSERT_OK(area);
  (*area)[kHeader] |= avx ? std::byte{7} : std::byte{3};
  const std::uint32_t mxcsr = 0x1fa0;
  std::memcpy(area->data() + kMxcsr, &mxcsr, sizeof mxcsr);
  std::fill_n(area->begin() + kXmm, 256, std::byte{0x5a});
  if (avx) std::fill_n(area->begin() + kYmmHigh, 256, std::byte{0xa5});
  ASSERT_OK(from_.vcpu->SetXsave(*area));
  ASSERT_NO_FATAL_FAILURE(Move());
  const auto got = to_.vcpu->GetXsave(to_.abilities.xsave_size);
  ASSERT_OK(got);
  EXPECT_TRUE(std::equal(got->begin(), got->begin() + kYmmHigh + 256, area->begin()));
  EXPECT_TRUE(!avx || to_.vcpu->GetXcrs()->xcrs[0].value == 7);
}

TEST_F(SavedVcpuTest, DebugRegisters) {
  kvm_debugregs debug{};
  debug.db[0] = 0x1000;
  debug.db[3] = 0xffffffff81000000;
  debug.dr6 = 0xffff0ff0;
  debug.dr7 = 0x401;
  ASSERT_OK(from_.vcpu->SetDebugRegs(debug));
  ASSERT_NO_FATAL_FAILURE(Move());
  EXPECT_TRUE(SameBytes(from_.vcpu->GetDebugRegs(), to_.vcpu->GetDebugRegs()));
  EXPECT_EQ(to_.vcpu->GetDebugRegs()->db[3], 0xffffffff81000000);
}

TEST_F(SavedVcpuTest, ModelSpecificRegisters) {
  std::map<std::uint32_t, std::uint64_t> values{{kStar, 0x0023001000000000},
                                                {kLstar, 0xffffffff82000000},
                                                {kPat, 0x0407050600070106},
                                                {0x174, 0x10},         // IA32_SYSENTER_CS
                                                {0xc0000102, 0x1234},  // IA32_KERNEL_GS_BASE
                                                {0x2ff, 0x806},        // IA32_MTRR_DEF_TYPE
                                                {0x200, 0x80000006}};  // IA32_MTRR_PHYSBASE0
  for (auto one = values.begin(); one != values.end();) {
    kvm_msr_entry entry{};
    entry.index = one->first;
    entry.data = one->second;
    const bool taken =
        from_.vcpu->SetMsrs({&entry, 1}).has_value() && Msr(from_, one->first) == one->second;
    one = taken ? std::next(one) : values.erase(one);
  }
  EXPECT_TRUE(values.contains(kLstar)) << "else this test shows nothing";
  ASSERT_NO_FATAL_FAILURE(Move());
  for (const auto& [index, value] : values) EXPECT_EQ(Msr(to_, index), value) << std::hex << index;
}

TEST_F(SavedVcpuTest, LocalApicEventsAndMpState) {
  auto lapic = from_.vcpu->GetLapic();
  ASSERT_OK(lapic);
  constexpr std::size_t kTaskPriority = 0x80;
  constexpr std::size_t kSpurious = 0xf0;
  constexpr std::size_t kRequest = 0x200;  // bit 33 of 256: vector 0x21 waits
  lapic->regs[kTaskPriority] = 0x20;
  lapic->regs[kSpurious + 1] |= 1;  // on
  lapic->regs[kRequest + 0x10] = 2;
  ASSERT_OK(from_.vcpu->SetLapic(*lapic));
  auto events = from_.vcpu->GetEvents();
  ASSERT_OK(events);
  events->nmi.pending = 1;
  events->interrupt.shadow = KVM_X86_SHADOW_INT_STI;
  ASSERT_OK(from_.vcpu->SetEvents(*events));
  kvm_mp_state halted{};
  halted.mp_state = KVM_MP_STATE_HALTED;
  ASSERT_OK(from_.vcpu->SetMpState(halted));
  const auto want = from_.vcpu->GetEvents();
  const auto want_state = from_.vcpu->GetMpState();
  const auto want_lapic = from_.vcpu->GetLapic();
  ASSERT_NO_FATAL_FAILURE(Move());
  const auto got = to_.vcpu->GetLapic();
  ASSERT_OK(got);
  for (const std::size_t reg : {kTaskPriority, kSpurious, kSpurious + 1, kRequest + 0x10})
    EXPECT_EQ(got->regs[reg], want_lapic->regs[reg]) << reg;
  EXPECT_EQ(to_.vcpu->GetEvents()->nmi.pending, want->nmi.pending);
  EXPECT_EQ(to_.vcpu->GetMpState()->mp_state, want_state->mp_state);
}

TEST_F(SavedVcpuTest, TheTscGoesOnFromItsSavedValue) {
  constexpr std::uint32_t kTsc = 0x10;
  constexpr std::uint64_t kFar = 1ULL << 50;  // half a million seconds from a new vCPU's
  kvm_msr_entry entry{};
  entry.index = kTsc;
  entry.data = kFar;
  ASSERT_OK(from_.vcpu->SetMsrs({&entry, 1}));
  if (Msr(from_, kTsc) < kFar) GTEST_SKIP() << "this KVM gives guests the host's TSC";
  ASSERT_NO_FATAL_FAILURE(Move());
  EXPECT_GE(Msr(to_, kTsc), kFar);
  EXPECT_LT(Msr(to_, kTsc), kFar + (kFar >> 4));
}

TEST_F(SavedVcpuTest, WhatThisHostCannotDoIsNamed) {
  const std::vector<std::byte> saved = Save(from_);
  std::vector<kvm_cpuid_entry2> less = to_.cpuid;
  const auto leaf = std::ranges::find(less, 1U, &kvm_cpuid_entry2::function);
  ASSERT_NE(leaf, less.end());
  leaf->edx &= ~(1U << 15);  // CMOV
  to_.cpuid = less;
  const Status status = Load(to_, saved);
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message(), HasSubstr("bit 15 of edx in CPUID leaf 0x1"));
}

TEST_F(SavedVcpuTest, EveryTruncationIsRefused) {
  const std::vector<std::byte> saved = Save(from_);
  ASSERT_FALSE(saved.empty());
  for (std::size_t size = 0; size < saved.size(); size += 1 + size / 64)
    EXPECT_FALSE(Load(to_, std::span(saved).first(size))) << size;
}

}  // namespace
}  // namespace holdfast::test
