// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <functional>

#include "model/test_support.h"

namespace holdfast::model {
namespace {

namespace abi = kvm::abi;

struct InPlace : World {
  explicit InPlace(std::uint64_t pages, std::uint64_t flags = kBothFlags)
      : World(Rules::OfRelease(7, 4).WithInPlace(), abi::kVmTypeSwProtected, pages, flags) {}
};

TEST(InPlaceModel, RefusesInTheKernelsOrderAndLeavesTheErrorOffsetAlone) {
  constexpr std::uint64_t kPages = 4;
  using Request = abi::MemoryAttributes2;
  const struct {
    const char* why;
    std::function<void(Request&)> spoil;
  } kCases[] = {
      {"flags", [](Request& r) { r.flags = 1; }},
      {"the first reserved word", [](Request& r) { r.reserved[0] = 1; }},
      {"the last reserved word", [](Request& r) { r.reserved[10] = 1; }},
      {"an attribute that does not exist", [](Request& r) { r.attributes = 1; }},
      {"private and one that does not exist", [](Request& r) { r.attributes = 12; }},
      {"no size", [](Request& r) { r.size = 0; }},
      {"a range that wraps",
       [](Request& r) {
         r.offset = ~0ULL << 12;
         r.size = 8192;
       }},
      {"an offset inside a page", [](Request& r) { r.offset = 512; }},
      {"a size of half a page", [](Request& r) { r.size = 2048; }},
      {"the end", [](Request& r) { r.offset = kPages * kPageSize; }},
      {"a page beyond the end", [](Request& r) { r.size = (kPages + 1) * kPageSize; }},
  };
  for (const auto& test : kCases) {
    SCOPED_TRACE(test.why);
    InPlace world(kPages);
    Request request{};
    request.size = kPageSize;
    request.attributes = abi::kMemoryAttributePrivate;
    request.error_offset = World::kUntouched;
    test.spoil(request);
    EXPECT_EQ(world.kernel.SetAttributes(world.file, request), -EINVAL);
    EXPECT_EQ(request.error_offset, World::kUntouched);
    EXPECT_EQ(world.kernel.AttributeRanges(world.file), 1U);
  }
}

TEST(InPlaceModel, IsUnknownToOtherKernelsAndRefusedWithoutPrivateMemory) {
  abi::MemoryAttributes2 request{};
  request.flags = 1;  // judged after the ioctl's existence
  World old(Rules::OfRelease(7, 3).WithTwoLayers(), abi::kVmTypeSwProtected, 1,
            abi::kGuestMemfdFlagMmap);
  EXPECT_EQ(old.kernel.SetAttributes(old.file, request), -ENOTTY);
  World plain(Rules::OfRelease(7, 4).WithInPlace(), abi::kVmTypeDefault, 1, kBothFlags);
  EXPECT_EQ(plain.Convert(0, 1, true), -EINVAL);
}

TEST(InPlaceModel, APinnedPageRefusesAllOfTheRangeAndNamesTheFirst) {
  InPlace world(8);
  for (std::uint64_t page = 0; page < 8; ++page) world.Write(page, 100 + page);
  const Handle later = world.kernel.Pin(world.host, 6 * kPageSize);
  const Handle pin = world.kernel.Pin(world.host, 3 * kPageSize);
  EXPECT_EQ(world.Convert(1, 7, true), -EAGAIN);
  EXPECT_EQ(world.request.error_offset, 3 * kPageSize);
  for (std::uint64_t page = 0; page < 8; ++page) EXPECT_EQ(world.Read(page), Holds(100 + page));
  world.kernel.Unpin(pin);
  EXPECT_EQ(world.Convert(1, 7, true), -EAGAIN);
  EXPECT_EQ(world.request.error_offset, 6 * kPageSize);
  world.kernel.Unpin(later);
  EXPECT_EQ(world.Convert(1, 7, true), 0);
  EXPECT_EQ(world.request.error_offset, World::kUntouched);
  EXPECT_EQ(world.Read(0), Holds(100));
  EXPECT_EQ(world.Read(1), kBusError);
  EXPECT_EQ(world.GuestRead(3), GuestHolds(103));
}

TEST(InPlaceModel, AnAlreadyPrivateRangeIsConvertedWithoutALookAtPins) {
  InPlace world(2);
  EXPECT_EQ(world.Convert(0, 2, true), 0);
  EXPECT_TRUE(world.kernel.PinPage(world.file, 0));
  EXPECT_EQ(world.Convert(0, 2, true), 0);
  // A range that is only half so looks at all of its pages.
  EXPECT_EQ(world.Convert(1, 1, false), 0);
  EXPECT_EQ(world.Convert(0, 2, true), -EAGAIN);
  EXPECT_EQ(world.request.error_offset, 0U);
  // And going shared asks nobody.
  EXPECT_EQ(world.Convert(0, 2, false), 0);
}

TEST(InPlaceModel, LackOfMemoryChangesNothingAndNamesTheStart) {
  InPlace world(4);
  world.kernel.FailConversions(1, ENOMEM);
  EXPECT_EQ(world.Convert(2, 2, true), -ENOMEM);
  EXPECT_EQ(world.request.error_offset, 2 * kPageSize);
  EXPECT_EQ(world.Read(2), Holds(0));
  EXPECT_EQ(world.Convert(2, 2, true), 0);
}

TEST(InPlaceModel, PunchingAndAllocatingLeaveAttributesAlone) {
  InPlace world(4);
  world.Write(0, 7);
  EXPECT_EQ(world.Convert(0, 2, true), 0);
  EXPECT_EQ(world.kernel.Fallocate(world.file, 3, 0, 4 * kPageSize), 0);
  EXPECT_EQ(world.Read(0), kBusError);
  EXPECT_EQ(world.GuestRead(0), GuestHolds(0));
  EXPECT_EQ(world.kernel.Fallocate(world.file, 1, 0, 4 * kPageSize), 0);
  EXPECT_EQ(world.kernel.AttributeOf(world.file, 1), Attribute::kPrivate);
  EXPECT_EQ(world.kernel.AttributeOf(world.file, 2), Attribute::kShared);
  EXPECT_EQ(world.kernel.AttributeRanges(world.file), 2U);
}

TEST(InPlaceModel, AnotherProcessMayConvertAndAClosedVmDoesNotMatter) {
  InPlace world(2);
  EXPECT_EQ(world.kernel.InChild([&] { return world.Convert(0, 1, true); }), 0);
  EXPECT_EQ(world.Read(0), kBusError);
  world.kernel.CloseVm(world.vm);
  EXPECT_EQ(world.Convert(0, 1, false), 0);
  EXPECT_EQ(world.Read(0), Holds(0));
}

TEST(InPlaceModel, APrivatePageWithoutItsSlotIsSharedToTheGuest) {
  InPlace world(1, abi::kGuestMemfdFlagMmap);
  EXPECT_EQ(world.GuestWrite(0, 5), GuestHolds(0));
  Region gone;
  gone.slot = 1;
  EXPECT_EQ(world.kernel.SetRegion(world.vm, gone), 0);
  EXPECT_EQ(world.GuestRead(0).end, GuestAccess::End::kMmio);
}

TEST(InPlaceModel, TheInitialImageGoesIntoPrivatePagesOrIsWhatTheyHold) {
  InPlace world(4);
  world.Write(0, 1);
  EXPECT_EQ(world.kernel.Populate(world.vm, kGuestBase, 1, {}), -EINVAL) << "still shared";
  EXPECT_EQ(world.Convert(0, 3, true), 0);
  EXPECT_EQ(world.kernel.Populate(world.vm, kGuestBase, 1, {}), 1);
  EXPECT_EQ(world.GuestRead(0), GuestHolds(1));
  // As many as there are: the fourth is shared.
  EXPECT_EQ(world.kernel.Populate(world.vm, kGuestBase, 4, {5, 6, 7, 8}), 3);
  EXPECT_EQ(world.GuestRead(2), GuestHolds(7));
  EXPECT_EQ(world.kernel.Populate(world.vm, kGuestBase, 1, {}), 1);
  world.kernel.Unmap(world.host);
  world.kernel.Close(world.file);
  EXPECT_EQ(world.kernel.Populate(world.vm, kGuestBase, 1, {}), -EFAULT);
  EXPECT_EQ(world.kernel.Populate(world.vm, 0, 1, {}), -EINVAL) << "no slot";
}

TEST(InPlaceModel, NeighboursWithTheSameAttributeAreOneRange) {
  InPlace world(64);
  for (std::uint64_t page = 0; page < 64; page += 2) EXPECT_EQ(world.Convert(page, 1, true), 0);
  EXPECT_EQ(world.kernel.AttributeRanges(world.file), 64U);
  for (std::uint64_t page = 1; page < 64; page += 2) EXPECT_EQ(world.Convert(page, 1, true), 0);
  EXPECT_EQ(world.Convert(0, 64, false), 0);
  EXPECT_EQ(world.kernel.AttributeRanges(world.file), 1U);
}

}  // namespace
}  // namespace holdfast::model
