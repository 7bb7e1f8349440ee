// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <linux/falloc.h>

#include <cerrno>

#include "model/test_support.h"

namespace holdfast::model {
namespace {

namespace abi = kvm::abi;

constexpr int kPunch = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE;

struct Plain : World {
  explicit Plain(std::uint64_t pages, std::uint64_t flags = kBothFlags)
      : World(Rules::OfRelease(7, 3), abi::kVmTypeDefault, pages, flags) {}
};

TEST(Model, GivesOutFilesOfPagesWithFlagsItKnows) {
  Model kernel(Rules::OfRelease(7, 3).WithTwoLayers());
  const Handle plain = kernel.CreateVm(abi::kVmTypeDefault);
  const Handle guarded = kernel.CreateVm(abi::kVmTypeSwProtected);
  EXPECT_EQ(kernel.CreateVm(2), -EINVAL);
  EXPECT_EQ(kernel.CreateVm(63), -EINVAL);
  const struct {
    Handle vm;
    std::uint64_t size, flags;
    bool works;
  } kCases[] = {
      {plain, kPageSize, 0, true},
      {plain, kPageSize, kBothFlags, true},
      {plain, kPageSize, abi::kGuestMemfdFlagInitShared, true},
      {plain, kPageSize, 4, false},
      {guarded, kPageSize, abi::kGuestMemfdFlagMmap, true},
      {guarded, kPageSize, kBothFlags, false},
      {plain, 0, 0, false},
      {plain, kPageSize - 1, 0, false},
      {plain, 0x7ffffffffffff000, 0, true},
      {plain, 0x8000000000000000, 0, false},
  };
  for (const auto& test : kCases) {
    SCOPED_TRACE(testing::Message() << test.vm << " " << test.size << " " << test.flags);
    const Handle file = kernel.CreateGuestMemfd(test.vm, test.size, test.flags);
    EXPECT_EQ(file >= 0, test.works);
    if (!test.works) {
      EXPECT_EQ(file, -EINVAL);
    }
  }
  EXPECT_EQ(kernel.InChild([&] { return kernel.CreateGuestMemfd(plain, kPageSize, 0); }), -EIO);
}

TEST(Model, FallocateChecksInOrder) {
  constexpr auto kPage = static_cast<std::int64_t>(kPageSize);
  const struct {
    int mode;
    std::int64_t offset, length;
    int answer;
  } kCases[] = {
      {FALLOC_FL_KEEP_SIZE, 0, 4 * kPage, 0},
      {FALLOC_FL_KEEP_SIZE, 4 * kPage, kPage, -EINVAL},
      {FALLOC_FL_KEEP_SIZE, 0, 5 * kPage, -EINVAL},
      {FALLOC_FL_KEEP_SIZE, 0, kPage - 1, -EINVAL},
      {FALLOC_FL_KEEP_SIZE, 0, 0, -EINVAL},
      {FALLOC_FL_KEEP_SIZE, -kPage, kPage, -EINVAL},
      {FALLOC_FL_KEEP_SIZE, INT64_MAX & ~4095, 2 * kPage, -EFBIG},
      {0, 0, kPage, -EOPNOTSUPP},
      {0, INT64_MAX & ~4095, 2 * kPage, -EFBIG},
      {FALLOC_FL_PUNCH_HOLE, 0, kPage, -EOPNOTSUPP},
      {FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, kPage, -EOPNOTSUPP},
      {FALLOC_FL_COLLAPSE_RANGE, 0, kPage, -EOPNOTSUPP},
      {kPunch, kPage, kPage - 1, -EINVAL},
      {kPunch, kPage - 1, kPage, -EINVAL},
      {kPunch, 4 * kPage, kPage, 0},
      {kPunch, 3 * kPage, 9 * kPage, 0},
  };
  for (const auto& test : kCases) {
    SCOPED_TRACE(testing::Message() << test.mode << " " << test.offset << " " << test.length);
    Plain world(4);
    EXPECT_EQ(world.kernel.Fallocate(world.file, test.mode, test.offset, test.length), test.answer);
  }
}

TEST(Model, APunchedPageIsFreshAndItsPinnerKeepsTheOldOne) {
  Plain world(3);
  for (std::uint64_t page = 0; page < 3; ++page) world.Write(page, 9);
  const Handle pin = world.kernel.Pin(world.host, kPageSize);
  EXPECT_EQ(world.kernel.PinsOf(world.file, 1), 1);
  EXPECT_EQ(world.kernel.Fallocate(world.file, kPunch, kPageSize, kPageSize), 0);
  EXPECT_FALSE(world.kernel.IsPresent(world.file, 1));
  EXPECT_EQ(world.Read(1), Holds(0));
  EXPECT_EQ(world.Read(2), Holds(9));
  EXPECT_EQ(world.kernel.PinnedValue(pin), 9U);
  EXPECT_EQ(world.kernel.PinsOf(world.file, 1), 0);
  world.kernel.Unpin(pin);
}

TEST(Model, AllocatingZeroesNothingTwiceAndKeepsWhatItGotBeforeMemoryRanOut) {
  Plain world(4);
  world.Write(1, 5);
  world.kernel.SetFreePages(2);
  EXPECT_EQ(world.kernel.Fallocate(world.file, FALLOC_FL_KEEP_SIZE, 0, 4 * kPageSize), -ENOMEM);
  EXPECT_TRUE(world.kernel.IsPresent(world.file, 2));
  EXPECT_FALSE(world.kernel.IsPresent(world.file, 3));
  EXPECT_EQ(world.Read(1), Holds(5));
  EXPECT_EQ(world.GuestRead(3).error, ENOMEM);
  EXPECT_EQ(world.kernel.Fallocate(world.file, kPunch, 0, kPageSize), 0);
  EXPECT_EQ(world.GuestRead(3), GuestHolds(0));
}

TEST(Model, MappingIsJudgedByTheFileAccessByThePage) {
  Plain none(1, 0);
  EXPECT_EQ(none.kernel.Map(none.file, 0, kPageSize, PROT_READ, MAP_SHARED), -ENODEV);
  Plain world(2);
  const auto map = [&](std::uint64_t offset, int protection, int flags) {
    return world.kernel.Map(world.file, offset, kPageSize, protection, flags);
  };
  EXPECT_EQ(map(0, PROT_READ, MAP_PRIVATE), -EINVAL);
  EXPECT_EQ(map(0, PROT_READ | PROT_EXEC, MAP_SHARED), -EPERM);
  EXPECT_EQ(map(0, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC), -EOPNOTSUPP);
  EXPECT_EQ(map(1, PROT_READ, MAP_SHARED), -EINVAL);
  const Handle read_only = map(0, PROT_READ, MAP_SHARED);
  EXPECT_EQ(world.kernel.Read(read_only, 0), Holds(0));
  EXPECT_EQ(world.kernel.Write(read_only, 0, 1).fault, Fault::kSegv);
  const Handle beyond = map(2 * kPageSize, PROT_READ, MAP_SHARED);
  EXPECT_EQ(world.kernel.Read(beyond, 0), kBusError);
  EXPECT_EQ(world.kernel.Pin(beyond, 0), -EFAULT);
  Plain closed(1, abi::kGuestMemfdFlagMmap);
  EXPECT_EQ(closed.Read(0), kBusError);
  EXPECT_EQ(closed.kernel.Advise(closed.host, 0, kPageSize, MADV_POPULATE_READ), -EFAULT);
}

TEST(Model, GuardsAreOfOneMappingAndOutlivePunchingOfWhatNoMappingShows) {
  Plain world(2);
  const Handle other = world.kernel.Map(world.file, 0, 2 * kPageSize, PROT_READ, MAP_SHARED);
  world.Write(1, 3);
  EXPECT_EQ(world.kernel.Advise(world.host, kPageSize, kPageSize, kAdviceGuardInstall), 0);
  EXPECT_EQ(world.Read(1).fault, Fault::kSegv);
  EXPECT_EQ(world.kernel.Fallocate(world.file, kPunch, 0, 2 * kPageSize), 0);
  EXPECT_EQ(world.Read(1).fault, Fault::kSegv);
  EXPECT_EQ(world.kernel.Read(other, kPageSize), Holds(0));
  EXPECT_EQ(world.kernel.Fallocate(world.file, kPunch, 0, 2 * kPageSize), 0);
  EXPECT_EQ(world.Read(1), Holds(0)) << "the other mapping showed it";
  EXPECT_EQ(world.kernel.Advise(world.host, 0, 2 * kPageSize, kAdviceGuardInstall), 0);
  EXPECT_EQ(world.Read(1).fault, Fault::kSegv);
  EXPECT_EQ(world.kernel.Advise(world.host, 0, 2 * kPageSize, kAdviceGuardRemove), 0);
  EXPECT_EQ(world.Read(1), Holds(0));
}

TEST(Model, BrokenMemoryStaysBrokenUntilItIsPunchedAndLongerWhereItShowed) {
  Plain world(2);
  world.Write(0, 1);
  EXPECT_EQ(world.kernel.Poison(world.host, 0), -EBUSY);
  EXPECT_EQ(world.Read(0).fault, Fault::kBusPoisoned);
  EXPECT_EQ(world.Read(1), Holds(0));
  const Handle fresh = world.kernel.Map(world.file, 0, kPageSize, PROT_READ, MAP_SHARED);
  EXPECT_EQ(world.kernel.Read(fresh, 0).fault, Fault::kBusPoisoned);
  EXPECT_EQ(world.GuestRead(0).error, EHWPOISON);
  EXPECT_EQ(world.kernel.Fallocate(world.file, FALLOC_FL_KEEP_SIZE, 0, kPageSize), 0);
  EXPECT_EQ(world.GuestRead(0).error, EHWPOISON);
  EXPECT_EQ(world.kernel.Fallocate(world.file, kPunch, 0, kPageSize), 0);
  EXPECT_EQ(world.GuestRead(0), GuestHolds(0));
  EXPECT_EQ(world.kernel.Read(fresh, 0), Holds(0));
  EXPECT_EQ(world.Read(0).fault, Fault::kBusPoisoned);
}

}  // namespace
}  // namespace holdfast::model
