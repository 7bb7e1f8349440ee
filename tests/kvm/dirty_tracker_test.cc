// SPDX-License-Identifier: Apache-2.0
// Dirty tracking of a running guest: each written page is reported once, and no other, whoever
// wrote it and however its memory is made.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <guest_images.h>
#include <holdfast/dirty_rings.h>
#include <holdfast/dirty_tracker.h>
#include <holdfast/units.h>

#include <atomic>
#include <thread>
#include <vector>

#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::uint64_t kRam = 64 * kMiB;

struct TrackerCase {
  const char* name;
  GuestVm::Options vm;
  DirtyMethod method;
};

void PrintTo(const TrackerCase& each, std::ostream* out) {
  *out << each.name;
}

std::vector<TrackerCase> Cases() {
  std::vector<TrackerCase> cases = {
      {"BitmapUnbound", {.ram_size = kRam}, DirtyMethod::kBitmap},
      {"BitmapBound", {.ram_size = kRam, .bound = true}, DirtyMethod::kBitmap},
      {"BitmapMemfd", {.ram_size = kRam, .memfd = true}, DirtyMethod::kBitmap},
      {"BitmapTwoRegions",
       {.ram_size = kRam, .bound = true, .high_ram = 256 * kMiB},
       DirtyMethod::kBitmap},
      {"BitmapGuard",
       {.ram_size = kRam, .conversion = ConversionEngineKind::kGuard},
       DirtyMethod::kBitmap},
      {"RingUnbound", {.ram_size = kRam, .dirty_ring = 1024}, DirtyMethod::kRing},
      {"RingBound", {.ram_size = kRam, .bound = true, .dirty_ring = 65536}, DirtyMethod::kRing},
      {"RingTwoRegions",
       {.ram_size = kRam, .bound = true, .high_ram = 256 * kMiB, .dirty_ring = 4096},
       DirtyMethod::kRing},
      {"HashUnbound", {.ram_size = kRam}, DirtyMethod::kHash},
      {"HashBound", {.ram_size = kRam, .bound = true}, DirtyMethod::kHash},
      {"HashMemfd", {.ram_size = kRam, .memfd = true}, DirtyMethod::kHash},
  };
  return cases;
}

class TrackerTest : public KvmTest, public ::testing::WithParamInterface<TrackerCase> {
 protected:
  // Addresses of the free RAM's pages: stacks and page tables are none of our business.
  static std::vector<std::uint64_t> Collect(GuestVm& guest, DirtyTracker& tracker) {
    DirtyPages dirty(guest.space());
    EXPECT_OK(tracker.Collect(dirty));
    std::vector<std::uint64_t> pages;
    for (const AddressSpace::Region& region : guest.space().regions()) {
      for (std::uint64_t at = 0; at < region.size; at += kPageSize) {
        const std::uint64_t address = region.base.value() + at;
        if (address < GuestVm::kFreeRam) continue;
        if (dirty.Find(*region.block)->Test((region.block_offset + at) / kPageSize))
          pages.push_back(address);
      }
    }
    return pages;
  }
};

TEST_P(TrackerTest, ReportsEachWrittenPageOnceAndNoOther) {
  auto made = GuestVm::Create(GetParam().vm);
  ASSERT_OK(made);
  GuestVm& guest = **made;
  const std::uint64_t high = GetParam().vm.high_ram;
  // Everything is mapped writable before tracking begins: the hard case.
  const std::uint64_t low_end = high != 0 ? kRam / 2 : kRam;
  RunWell(guest, guests::kMemwalk,
          {GuestVm::kFreeRam, (low_end - GuestVm::kFreeRam) / kPageSize, 1});
  if (high != 0) RunWell(guest, guests::kMemwalk, {high, kRam / 2 / kPageSize, 1});

  auto tracker = DirtyTracker::Start(guest.space(), guest.vm(), {.method = GetParam().method});
  ASSERT_OK(tracker);
  EXPECT_EQ((*tracker)->method(), GetParam().method);
  EXPECT_THAT(Collect(guest, **tracker), IsEmpty());

  std::vector<std::uint64_t> written;
  for (const std::uint64_t page : {0U, 1U, 63U, 64U, 700U, 7000U}) {
    const std::uint64_t address = GuestVm::kFreeRam + page * kPageSize;
    RunWell(guest, guests::kMemwalk, {address, 1, 2});
    written.push_back(address);
  }
  if (high != 0) {
    RunWell(guest, guests::kMemwalk, {high + 5 * kPageSize, 2, 2});
    written.insert(written.end(), {high + 5 * kPageSize, high + 6 * kPageSize});
  }
  EXPECT_THAT(Collect(guest, **tracker), ElementsAreArray(written));
  EXPECT_THAT(Collect(guest, **tracker), IsEmpty());

  // Reading does not count; a second write does again, and so does the monitor's.
  RunWell(guest, guests::kMemcheck, {GuestVm::kFreeRam, 0, 0});
  RunWell(guest, guests::kPoke, {written[2], 77});
  guest.SetWord(GuestVm::kFreeRam + 900 * kPageSize, 5);
  EXPECT_THAT(Collect(guest, **tracker),
              ElementsAre(written[2], GuestVm::kFreeRam + 900 * kPageSize));

  ASSERT_OK((*tracker)->Stop());
  EXPECT_THAT(Collect(guest, **tracker), IsEmpty());
  // What was there before is still there, and the guest goes on.
  EXPECT_EQ(guest.Word(written[2]), 77U);
  RunWell(guest, guests::kMemwalk, {GuestVm::kFreeRam, 1000, 3});
}

TEST_P(TrackerTest, ReportsEverythingAtFirstIfAsked) {
  auto made = GuestVm::Create(GetParam().vm);
  ASSERT_OK(made);
  GuestVm& guest = **made;
  RunWell(guest, guests::kMemwalk, {GuestVm::kFreeRam, 64, 1});
  auto tracker = DirtyTracker::Start(guest.space(), guest.vm(),
                                     {.method = GetParam().method, .all_dirty_at_first = true});
  ASSERT_OK(tracker);
  EXPECT_EQ(Collect(guest, **tracker).size(), (kRam - GuestVm::kFreeRam) / kPageSize);
  EXPECT_THAT(Collect(guest, **tracker), IsEmpty());
  RunWell(guest, guests::kPoke, {GuestVm::kFreeRam, 77});
  EXPECT_THAT(Collect(guest, **tracker), ElementsAre(GuestVm::kFreeRam));
}

TEST_P(TrackerTest, LosesNoWriteOfAGuestThatRunsOn) {
  auto made = GuestVm::Create(GetParam().vm);
  ASSERT_OK(made);
  GuestVm& guest = **made;
  constexpr std::uint64_t kPages = 2048;
  RunWell(guest, guests::kMemwalk, {GuestVm::kFreeRam, kPages, 1});
  auto tracker = DirtyTracker::Start(guest.space(), guest.vm(), {.method = GetParam().method});
  ASSERT_OK(tracker);

  // A copy of what was reported, made while the guest writes, is in the end what the guest has.
  std::vector<std::byte> copy(kRam);
  ASSERT_OK(guest.space().Read(GuestAddress(0), std::span(copy).first(kRam / 2)));
  const auto copy_dirty = [&] {
    for (const std::uint64_t page : Collect(guest, **tracker)) {
      if (page + kPageSize > copy.size()) continue;
      EXPECT_OK(guest.space().Read(GuestAddress(page), std::span(copy).subspan(page, kPageSize)));
    }
  };
  std::atomic<bool> ended = false;
  std::thread writer([&] {
    for (std::uint64_t seed = 2; seed < 8; ++seed)
      RunWell(guest, guests::kMemwalk, {GuestVm::kFreeRam, kPages, seed});
    ended = true;
  });
  while (!ended) copy_dirty();
  writer.join();
  copy_dirty();
  std::vector<std::byte> now(kPages * kPageSize);
  ASSERT_OK(guest.space().Read(GuestAddress(GuestVm::kFreeRam), now));
  EXPECT_TRUE(std::ranges::equal(now, std::span(copy).subspan(GuestVm::kFreeRam, now.size())));
}

std::string CaseName(const ::testing::TestParamInfo<TrackerCase>& each) {
  return each.param.name;
}

INSTANTIATE_TEST_SUITE_P(, TrackerTest, ::testing::ValuesIn(Cases()), CaseName);

class TrackerChoice : public KvmTest {};

TEST_F(TrackerChoice, FallsBackToHashingWhereTheLogCannotBe) {
  auto made = GuestVm::Create({.ram_size = kRam});
  ASSERT_OK(made);
  GuestVm& guest = **made;
  auto first = DirtyTracker::Start(guest.space(), guest.vm());
  ASSERT_OK(first);
  EXPECT_EQ((*first)->method(), DirtyMethod::kBitmap);
  auto second = DirtyTracker::Start(guest.space(), guest.vm());
  ASSERT_OK(second);
  EXPECT_EQ((*second)->method(), DirtyMethod::kHash);
  first->reset();

  auto access = guest.space().GrantExternalAccess("the network card 'n0' (vhost)");
  ASSERT_OK(access);
  auto third = DirtyTracker::Start(guest.space(), guest.vm());
  ASSERT_OK(third);
  EXPECT_EQ((*third)->method(), DirtyMethod::kHash);
  const auto refused =
      DirtyTracker::Start(guest.space(), guest.vm(), {.method = DirtyMethod::kBitmap});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().ToString(),
              HasSubstr("the network card 'n0' (vhost) writes guest memory without a log of it"));
}

TEST_F(TrackerChoice, WhereThereAreRingsTheyAreUsedAndThereIsNoLog) {
  auto made = GuestVm::Create({.ram_size = kRam, .vcpus = 2, .dirty_ring = 1024});
  ASSERT_OK(made);
  GuestVm& guest = **made;
  {
    auto tracker = DirtyTracker::Start(guest.space(), guest.vm());
    ASSERT_OK(tracker);
    EXPECT_EQ((*tracker)->method(), DirtyMethod::kRing);
    // Many times what the rings hold, by two vCPUs: they are emptied on the way.
    constexpr std::uint64_t kPages = 5000;
    const std::uint64_t second = GuestVm::kFreeRam + kPages * kPageSize;
    for (const GuestOutcome& outcome :
         guest.Run(guests::kMemwalk, {{GuestVm::kFreeRam, kPages, 1}, {second, kPages, 1}}))
      EXPECT_EQ(outcome.error, "");
    DirtyPages dirty(guest.space());
    ASSERT_OK((*tracker)->Collect(dirty));
    const PageBitmap& pages = *dirty.Find(guest.ram());
    for (std::uint64_t page = 0; page < 2 * kPages; ++page)
      EXPECT_TRUE(pages.Test(GuestVm::kFreeRam / kPageSize + page)) << page;
    std::uint64_t all = 0;
    for (const std::uint64_t count : guest.vm().dirty_rings()->Counts()) all += count;
    EXPECT_GE(all, 2 * kPages);
  }
  const auto refused =
      DirtyTracker::Start(guest.space(), guest.vm(), {.method = DirtyMethod::kBitmap});
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().ToString(), HasSubstr("no dirty log where it has dirty rings"));

  auto plain = GuestVm::Create({.ram_size = kRam});
  ASSERT_OK(plain);
  const auto none =
      DirtyTracker::Start((*plain)->space(), (*plain)->vm(), {.method = DirtyMethod::kRing});
  ASSERT_FALSE(none);
  EXPECT_THAT(none.error().ToString(), HasSubstr("-accel kvm,dirty-ring-size="));
}

TEST_F(TrackerChoice, MemoryInTwoLayersIsRefusedAndGoesOn) {
  auto made = GuestVm::Create({.ram_size = kRam, .conversion = ConversionEngineKind::kAttributes});
  // Where no VM type has private memory there is none in two layers to track.
  if ((capabilities().memory_attributes & kvm::abi::kMemoryAttributePrivate) == 0) {
    EXPECT_FALSE(made);
    return;
  }
  ASSERT_OK(made);
  GuestVm& guest = **made;
  const auto refused = DirtyTracker::Start(guest.space(), guest.vm());
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().ToString(), HasSubstr("cannot leave its guest_memfd memslot"));
  RunWell(guest, guests::kMemwalk, {GuestVm::kFreeRam, 16, 1});
}

}  // namespace
}  // namespace holdfast::test
