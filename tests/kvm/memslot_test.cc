// SPDX-License-Identifier: Apache-2.0
// Memslots, bound and unbound: what KVM refuses, and that the kind of a slot is not for life.
#include <abi.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <guest_images.h>
#include <holdfast/units.h>
#include <holdfast/vm.h>

#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

using ::testing::ElementsAre;

constexpr std::uint64_t kPages = 16;
constexpr std::uint64_t kBlock = kPages * kPageSize;
constexpr std::uint64_t kElsewhere = kGiB;

// Linux 7.2 tells "that range is taken" from "that makes no sense" for bindings too.
int OverlappingBindingErrno() {
  return KernelRelease() >= std::pair(7, 2) ? EEXIST : EINVAL;
}

class MemslotTest : public KvmTest {
 protected:
  void SetUp() override {
    KvmTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    auto block = RamBlock::CreateGuestMemfd(vm(), "ram", kBlock, true);
    ASSERT_OK(block);
    block_ = *std::move(block);
  }
  // Slot `number` of the whole block at `base`.
  kvm::Memslot Slot(std::uint32_t number, std::uint64_t base, bool bound,
                    std::uint32_t flags = 0) const {
    kvm::Memslot slot;
    slot.slot = number;
    slot.flags = flags;
    slot.base = GuestAddress(base);
    slot.size = kBlock;
    slot.userspace_addr = block_->guest_view_address();
    if (bound) slot.guest_memfd = block_->guest_memfd();
    return slot;
  }

  std::unique_ptr<RamBlock> block_;
};

TEST_F(MemslotTest, GuestRangesMayNotOverlap) {
  ASSERT_OK(vm().SetMemslot(Slot(0, 0, false)));
  for (const std::uint64_t base : {std::uint64_t{0}, kPageSize, kBlock - kPageSize})
    EXPECT_EQ(ErrnoOf(vm().SetMemslot(Slot(1, base, false))), EEXIST) << base;
  EXPECT_OK(vm().SetMemslot(Slot(1, kBlock, false)));
}

TEST_F(MemslotTest, BindingsOfOneGuestMemfdMayNotOverlap) {
  ASSERT_OK(vm().SetMemslot(Slot(0, 0, true)));
  kvm::Memslot second = Slot(1, kElsewhere, true);
  EXPECT_EQ(ErrnoOf(vm().SetMemslot(second)), OverlappingBindingErrno());
  second.size = kPageSize;
  second.guest_memfd_offset = kBlock - kPageSize;
  second.userspace_addr += kBlock - kPageSize;
  EXPECT_EQ(ErrnoOf(vm().SetMemslot(second)), OverlappingBindingErrno());
  // The same memory a second time without binding is allowed.
  EXPECT_OK(vm().SetMemslot(Slot(1, kElsewhere, false)));
}

TEST_F(MemslotTest, BindingMustLieInsideTheGuestMemfd) {
  for (const std::uint64_t offset : {kPageSize, kBlock, kBlock + kPageSize}) {
    kvm::Memslot slot = Slot(0, 0, true);
    slot.guest_memfd_offset = offset;
    EXPECT_EQ(ErrnoOf(vm().SetMemslot(slot)), EINVAL) << offset;
  }
}

TEST_F(MemslotTest, BoundSlotRefusesDirtyLogAndReadOnly) {
  EXPECT_EQ(ErrnoOf(vm().SetMemslot(Slot(0, 0, true, KVM_MEM_LOG_DIRTY_PAGES))), EINVAL);
  EXPECT_EQ(ErrnoOf(vm().SetMemslot(Slot(0, 0, true, KVM_MEM_READONLY))), EINVAL);
  EXPECT_OK(vm().SetMemslot(Slot(0, 0, false, KVM_MEM_LOG_DIRTY_PAGES)));
}

TEST_F(MemslotTest, BoundSlotCannotBeChangedOnlyDeleted) {
  ASSERT_OK(vm().SetMemslot(Slot(0, 0, true)));
  EXPECT_EQ(ErrnoOf(vm().SetMemslot(Slot(0, 0, true))), EINVAL);
  EXPECT_EQ(ErrnoOf(vm().SetMemslot(Slot(0, 0, false))), EINVAL);
  EXPECT_EQ(ErrnoOf(vm().SetMemslot(Slot(0, kElsewhere, true))), EINVAL);
  EXPECT_OK(vm().DeleteMemslot(0));
  EXPECT_OK(vm().SetMemslot(Slot(0, kElsewhere, true)));
}

TEST_F(MemslotTest, GuestMemfdOfAnotherVmIsRefused) {
  auto other = kvm::Vm::Create(system());
  ASSERT_OK(other);
  EXPECT_EQ(ErrnoOf(other->SetMemslot(Slot(0, 0, true))), EINVAL);
  // Without binding it is memory like any other.
  EXPECT_OK(other->SetMemslot(Slot(0, 0, false)));
}

TEST_F(MemslotTest, EmptyAndAbsentSlotsAreErrors) {
  kvm::Memslot empty = Slot(0, 0, false);
  empty.size = 0;
  const Status status = vm().SetMemslot(empty);
  ASSERT_FALSE(status.has_value());
  EXPECT_EQ(status.error().code(), Errc::kInvalidArgument);
  EXPECT_EQ(ErrnoOf(vm().DeleteMemslot(7)), EINVAL);
}

TEST_F(MemslotTest, AddressSpaceGivesItsSlotsBack) {
  for (int round = 0; round < 2; ++round) {
    AddressSpace space(&vm());
    ASSERT_OK(space.AddRam(GuestAddress(0), kBlock / 2, *block_, 0)) << "round " << round;
    ASSERT_OK(space.AddRam(GuestAddress(kElsewhere), kBlock / 2, *block_, kBlock / 2));
    EXPECT_EQ(space.total_size(), kBlock);
  }
}

TEST_F(MemslotTest, AddressSpaceStaysAsItWasWhenKvmRefuses) {
  AddressSpace space(&vm());
  ASSERT_OK(space.AddRam(GuestAddress(0), kBlock, *block_, 0));
  // Bound twice: our own checks do not see it, KVM does.
  EXPECT_EQ(ErrnoOf(space.AddRam(GuestAddress(kElsewhere), kBlock, *block_, 0)),
            OverlappingBindingErrno());
  EXPECT_EQ(space.regions().size(), 1U);
  EXPECT_EQ(space.end(), GuestAddress(kBlock));
}

// Parameter: how the slot starts out.
using SlotExchange = GuestTest;
INSTANTIATE_TEST_SUITE_P(, SlotExchange, ::testing::Bool(), BoundName);

TEST_P(SlotExchange, KeepsContentsBothWays) {
  const auto guest = Make();
  ASSERT_NE(guest, nullptr);
  constexpr std::uint64_t kHostPart = GuestVm::kFreeRam;
  constexpr std::uint64_t kGuestPart = GuestVm::kFreeRam + 8 * kMiB;
  guest->WritePattern(kHostPart, 256, 1);
  RunWell(*guest, guests::kMemwalk, {kGuestPart, 256, 2});
  const std::uint64_t present = PresentPages(guest->ram().host_view());
  for (const bool bind : {!bound(), bound()}) {
    ASSERT_OK(guest->vm().DeleteMemslot(guest->RamSlot(bind).slot));
    ASSERT_OK(guest->vm().SetMemslot(guest->RamSlot(bind)));
    EXPECT_EQ(PresentPages(guest->ram().host_view()), present);
    EXPECT_THAT(RunWell(*guest, guests::kMemcheck, {kHostPart, 256, 1}).reports, ElementsAre(0));
    EXPECT_EQ(guest->Word(kGuestPart), guests::Pattern(2, kGuestPart));
    // And it is still one memory: what the guest writes now, the host sees.
    RunWell(*guest, guests::kMemwalk, {kGuestPart, 256, 2});
  }
}

}  // namespace
}  // namespace holdfast::test
