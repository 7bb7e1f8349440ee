// SPDX-License-Identifier: Apache-2.0
#include <linux/kvm.h>

#include <cerrno>
#include <functional>

#include "model/test_support.h"

namespace holdfast::model {
namespace {

namespace abi = kvm::abi;
using End = GuestAccess::End;

constexpr std::uint64_t kSlotPages = 4;
constexpr std::uint64_t kSlotSize = kSlotPages * kPageSize;

Region At(std::uint32_t slot, std::uint64_t gpa, Handle file, std::uint64_t offset) {
  Region region;
  region.slot = slot;
  region.flags = abi::kMemGuestMemfd;
  region.gpa = gpa;
  region.size = kPageSize;
  region.file = file;
  region.file_offset = offset;
  return region;
}

TEST(GuestModel, SlotsAreRefusedForEachMistake) {
  const struct {
    const char* why;
    std::function<void(Region&)> spoil;
    int answer;
  } kCases[] = {
      {"an unknown flag", [](Region& r) { r.flags |= 8; }, -EINVAL},
      {"a dirty log of a bound slot", [](Region& r) { r.flags |= KVM_MEM_LOG_DIRTY_PAGES; },
       -EINVAL},
      {"a bound slot that is read-only", [](Region& r) { r.flags |= KVM_MEM_READONLY; }, -EINVAL},
      {"a bound slot of the first ioctl", [](Region& r) { r.first_version = true; }, -EINVAL},
      {"an unaligned size", [](Region& r) { r.size += 1; }, -EINVAL},
      {"an unaligned guest address", [](Region& r) { r.gpa += 8; }, -EINVAL},
      {"an unaligned offset", [](Region& r) { r.file_offset += 1; }, -EINVAL},
      {"no such slot number", [](Region& r) { r.slot = 32764; }, -EINVAL},
      {"a guest range that wraps",
       [](Region& r) {
         r.gpa = ~0ULL << 12;
         r.size = 8192;
       },
       -EINVAL},
      {"the deletion of nothing",
       [](Region& r) {
         r.slot = 7;
         r.size = 0;
       },
       -EINVAL},
      {"a guest range that is taken", [](Region& r) { r.gpa = kGuestBase; }, -EEXIST},
      {"no file", [](Region& r) { r.file = kNoHandle; }, -EBADF},
      {"an offset at the end", [](Region& r) { r.file_offset = kSlotSize; }, -EINVAL},
      {"the same pages twice", [](Region& r) { r.file_offset = 0; }, -EEXIST},
      {"an existing bound slot", [](Region& r) { r.slot = 1; }, -EINVAL},
  };
  for (const auto& test : kCases) {
    SCOPED_TRACE(test.why);
    Model kernel(Rules::OfRelease(7, 3));
    const Handle vm = kernel.CreateVm(0);
    const Handle file = kernel.CreateGuestMemfd(vm, kSlotSize, kBothFlags);
    ASSERT_EQ(kernel.SetRegion(vm, At(1, kGuestBase, file, 0)), 0);
    Region region = At(2, 2 * kGuestBase, file, kPageSize);
    test.spoil(region);
    EXPECT_EQ(kernel.SetRegion(vm, region), test.answer);
  }
}

TEST(GuestModel, BindsOnlyFilesOfItsOwnVmOncePerPage) {
  for (const bool newer : {false, true}) {
    Model kernel(newer ? Rules::OfRelease(7, 2) : Rules::OfRelease(6, 18));
    const Handle vm = kernel.CreateVm(0);
    const Handle stranger = kernel.CreateGuestMemfd(kernel.CreateVm(0), kSlotSize, 0);
    const Handle file = kernel.CreateGuestMemfd(vm, kSlotSize, 0);
    for (const Handle wrong : {stranger, kernel.Open(OtherFile::kMemfd)})
      EXPECT_EQ(kernel.SetRegion(vm, At(1, kGuestBase, wrong, 0)), -EINVAL);
    EXPECT_EQ(kernel.SetRegion(vm, At(1, kGuestBase, file, 0)), 0);
    // Also through a duplicate of the descriptor.
    EXPECT_EQ(kernel.SetRegion(vm, At(2, 2 * kGuestBase, kernel.Duplicate(file), 0)),
              newer ? -EEXIST : -EINVAL);
    Region far = At(3, 2 * kGuestBase, file, static_cast<std::uint64_t>(INT64_MAX) & ~4095ULL);
    EXPECT_EQ(kernel.SetRegion(vm, far), newer ? -EINVAL : 0);
  }
}

TEST(GuestModel, AFileThatIsGoneLeavesItsSlotBehind) {
  World world(Rules::OfRelease(7, 3), 0, kSlotPages, kBothFlags);
  world.GuestWrite(0, 3);
  world.kernel.Close(world.file);
  EXPECT_EQ(world.GuestRead(0), GuestHolds(3)) << "the mapping holds the file";
  world.kernel.Unmap(world.host);
  EXPECT_EQ(world.GuestRead(0), (GuestAccess{End::kMemoryFault, EFAULT, 0, kGuestBase, 0}));
  EXPECT_EQ(world.kernel.PreFault(world.vm, kGuestBase, kPageSize, 0),
            (PreFaulted{-EFAULT, kPageSize}));
  const Handle file = world.kernel.CreateGuestMemfd(world.vm, kSlotSize, kBothFlags);
  EXPECT_EQ(world.kernel.SetRegion(world.vm, At(2, kGuestBase, file, 0)), -EEXIST);
}

TEST(GuestModel, ContentsFollowTheFileThroughItsSlots) {
  World world(Rules::OfRelease(7, 3), 0, kSlotPages, kBothFlags);
  world.GuestWrite(2, 8);
  EXPECT_EQ(world.Read(2), Holds(8));
  Region gone;
  gone.slot = 1;
  EXPECT_EQ(world.kernel.SetRegion(world.vm, gone), 0);
  EXPECT_EQ(world.GuestRead(2).end, End::kMmio);
  EXPECT_EQ(world.kernel.SetRegion(world.vm, At(5, 8 * kGiB, world.file, 2 * kPageSize)), 0);
  EXPECT_EQ(world.kernel.GuestRead(world.vm, 8 * kGiB), GuestHolds(8));
}

TEST(GuestModel, TwoLayersKeepBothCopies) {
  World world(Rules::OfRelease(7, 3).WithTwoLayers(), abi::kVmTypeSwProtected, kSlotPages, 0);
  const auto set = [&](std::uint64_t attributes) {
    return world.kernel.SetVmAttributes(world.vm, {kGuestBase, kPageSize, attributes, 0});
  };
  world.Write(0, 0x11);
  EXPECT_EQ(world.GuestRead(0), GuestHolds(0x11));
  EXPECT_EQ(set(abi::kMemoryAttributePrivate), 0);
  EXPECT_EQ(world.GuestRead(0), GuestHolds(0));
  world.GuestWrite(0, 0x22);
  EXPECT_EQ(world.Read(0), Holds(0x11)) << "the stale copy stays readable";
  EXPECT_EQ(set(0), 0);
  EXPECT_EQ(world.GuestRead(0), GuestHolds(0x11));
  EXPECT_EQ(set(abi::kMemoryAttributePrivate), 0);
  EXPECT_EQ(world.GuestRead(0), GuestHolds(0x22));
  Region gone;
  gone.slot = 1;
  EXPECT_EQ(world.kernel.SetRegion(world.vm, gone), 0);
  EXPECT_EQ(world.GuestRead(0),
            (GuestAccess{End::kMemoryFault, EFAULT, abi::kMemoryExitFlagPrivate, kGuestBase, 0}));
}

TEST(GuestModel, VmAttributesAreCheckedInOrder) {
  World world(Rules::OfRelease(7, 3).WithTwoLayers(), abi::kVmTypeSwProtected, kSlotPages, 0);
  const abi::MemoryAttributes kCases[] = {
      {0, kPageSize, 0, 1}, {0, kPageSize, 1, 0},   {0, 0, 0, 0},
      {0, 100, 0, 0},       {100, kPageSize, 0, 0}, {~0ULL << 12, kPageSize, 0, 0},
  };
  for (const auto& request : kCases)
    EXPECT_EQ(world.kernel.SetVmAttributes(world.vm, request), -EINVAL);
  const abi::MemoryAttributes good{0, kPageSize, abi::kMemoryAttributePrivate, 0};
  EXPECT_EQ(world.kernel.InChild([&] { return world.kernel.SetVmAttributes(world.vm, good); }),
            -EIO);
  const Handle plain = world.kernel.CreateVm(abi::kVmTypeDefault);
  EXPECT_EQ(world.kernel.SetVmAttributes(plain, good), -EINVAL);
  Model in_place(Rules::OfRelease(7, 4).WithInPlace());
  EXPECT_EQ(in_place.SetVmAttributes(in_place.CreateVm(1), good), -ENOTTY);
}

TEST(GuestModel, PreFaultingGoesAsFarAsItCan) {
  World world(Rules::OfRelease(7, 3), 0, kSlotPages, kBothFlags);
  auto& kernel = world.kernel;
  EXPECT_EQ(kernel.PreFault(world.vm, kGuestBase, 2 * kPageSize, 0), (PreFaulted{0, 0}));
  EXPECT_TRUE(kernel.IsPresent(world.file, 1));
  EXPECT_EQ(kernel.PreFault(world.vm, kGuestBase + 3 * kPageSize, 2 * kPageSize, 0),
            (PreFaulted{0, kPageSize}));
  EXPECT_EQ(kernel.PreFault(world.vm, kGuestBase + kSlotSize, kPageSize, 0),
            (PreFaulted{-ENOENT, kPageSize}));
  EXPECT_EQ(kernel.PreFault(world.vm, kGuestBase, kPageSize, 1).result, -EINVAL);
  EXPECT_EQ(kernel.PreFault(world.vm, kGuestBase + 1, kPageSize, 0).result, -EINVAL);
  EXPECT_EQ(kernel.PreFault(world.vm, kGuestBase, 0, 0).result, -EINVAL);
}

}  // namespace
}  // namespace holdfast::model
