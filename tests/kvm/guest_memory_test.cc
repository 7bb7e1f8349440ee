// SPDX-License-Identifier: Apache-2.0
// Guest and host look at one memory: both ways, with an unbound and with a bound memslot.
#include <abi.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <guest_images.h>
#include <holdfast/units.h>

#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::uint64_t kStart = GuestVm::kFreeRam;
constexpr std::uint64_t kSeed = 42;

using GuestMemory = GuestTest;
INSTANTIATE_TEST_SUITE_P(, GuestMemory, ::testing::Bool(), BoundName);

TEST_P(GuestMemory, RunsAGuestInRing3) {
  const auto guest = Make();
  ASSERT_NE(guest, nullptr);
  EXPECT_EQ(RunWell(*guest, guests::kHello, {}).console, "hello from ring 3\n");
}

TEST_P(GuestMemory, HostSeesWhatTheGuestWrites) {
  const auto guest = Make();
  ASSERT_NE(guest, nullptr);
  constexpr std::uint64_t kPages = 1024;
  EXPECT_THAT(RunWell(*guest, guests::kMemwalk, {kStart, kPages, kSeed}).reports, ElementsAre(0));
  for (std::uint64_t page = kStart; page < kStart + kPages * kPageSize; page += kPageSize) {
    const std::uint64_t last = page + kPageSize - 8;
    ASSERT_EQ(guest->Word(page), guests::Pattern(kSeed, page));
    ASSERT_EQ(guest->Word(page + 8), 0U);
    ASSERT_EQ(guest->Word(last), guests::Pattern(kSeed, last));
  }
}

TEST_P(GuestMemory, GuestSeesWhatTheHostWrites) {
  const auto guest = Make();
  ASSERT_NE(guest, nullptr);
  guest->WritePattern(kStart, 512, kSeed);
  EXPECT_THAT(RunWell(*guest, guests::kMemcheck, {kStart, 512, kSeed}).reports, ElementsAre(0));
  // And sees it change after it has been there.
  guest->WritePattern(kStart, 512, kSeed + 1);
  EXPECT_THAT(RunWell(*guest, guests::kMemcheck, {kStart, 512, kSeed + 1}).reports, ElementsAre(0));
}

TEST_P(GuestMemory, GuestReportsTheFirstWordThatDiffers) {
  const auto guest = Make();
  ASSERT_NE(guest, nullptr);
  guest->WritePattern(kStart, 16, kSeed);
  const std::uint64_t wrong = kStart + 7 * kPageSize + 16;
  guest->SetWord(wrong, 0xbad);
  guest->SetWord(wrong + kPageSize, 0xbad2);
  const GuestOutcome outcome = guest->Run(guests::kMemcheck, {kStart, 16, kSeed});
  EXPECT_EQ(outcome.error, "");
  EXPECT_EQ(outcome.end_code, 1);
  EXPECT_THAT(outcome.reports, ElementsAre(wrong, 0xbad));
}

TEST_P(GuestMemory, IsAllocatedWhereItIsTouchedAndOnlyThere) {
  const auto guest = Make();
  ASSERT_NE(guest, nullptr);
  RunWell(*guest, guests::kMemwalk, {kStart, 1, kSeed});  // its code and stack are there now
  const std::uint64_t before = PresentPages(guest->ram().host_view());
  constexpr std::uint64_t kPages = 777;
  RunWell(*guest, guests::kMemwalk, {kStart + kMiB, kPages, kSeed});
  EXPECT_EQ(PresentPages(guest->ram().host_view()), before + kPages);
}

TEST_P(GuestMemory, PunchedPagesAreZeroForTheGuestAndTheirNeighboursAsBefore) {
  const auto guest = Make();
  ASSERT_NE(guest, nullptr);
  guest->WritePattern(kStart, 64, kSeed);
  RunWell(*guest, guests::kMemcheck, {kStart, 64, kSeed});
  const std::uint64_t before = PresentPages(guest->ram().host_view());
  ASSERT_OK(guest->ram().guest_memfd()->PunchHole(kStart + 8 * kPageSize, 4 * kPageSize));
  EXPECT_EQ(PresentPages(guest->ram().host_view()), before - 4);
  RunWell(*guest, guests::kMemcheck, {kStart, 8, kSeed});
  RunWell(*guest, guests::kMemcheck, {kStart + 12 * kPageSize, 52, kSeed});
  const GuestOutcome hole = guest->Run(guests::kMemcheck, {kStart + 8 * kPageSize, 1, kSeed});
  EXPECT_THAT(hole.reports, ElementsAre(kStart + 8 * kPageSize, 0));
}

TEST_P(GuestMemory, PiecesOfABlockLieWhereTheyWerePut) {
  // The upper half of the block far above the lower one, as RAM above 4 GiB is.
  const auto guest = Make({.ram_size = 64 * kMiB, .high_ram = 3 * kGiB});
  ASSERT_NE(guest, nullptr);
  RunWell(*guest, guests::kMemwalk, {3 * kGiB, 256, kSeed});
  const auto upper = guest->ram().host_view().subspan(32 * kMiB);
  EXPECT_EQ(PresentPages(upper), 256U);
  EXPECT_EQ(guest->Word(3 * kGiB + 255 * kPageSize),
            guests::Pattern(kSeed, 3 * kGiB + 255 * kPageSize));
}

TEST_P(GuestMemory, BeyondRamAccessesComeToTheMonitor) {
  const auto guest = Make();
  ASSERT_NE(guest, nullptr);
  const std::uint64_t end = guest->ram().size();
  const GuestOutcome outcome = RunWell(*guest, guests::kPoke, {end, 0x1234567890abcdef});
  ASSERT_EQ(outcome.mmio.size(), 2U);
  EXPECT_TRUE(outcome.mmio[0].write);
  EXPECT_EQ(outcome.mmio[0].address, GuestAddress(end));
  EXPECT_EQ(outcome.mmio[0].value, 0x1234567890abcdefU);
  EXPECT_FALSE(outcome.mmio[1].write);
  EXPECT_EQ(outcome.mmio[1].address, GuestAddress(end + 8));
  EXPECT_THAT(outcome.reports, ElementsAre(GuestVm::kMmioValue));
}

TEST_P(GuestMemory, LastWordsOfRamAreRam) {
  const auto guest = Make();
  ASSERT_NE(guest, nullptr);
  const std::uint64_t end = guest->ram().size();
  guest->SetWord(end - 8, 77);
  const GuestOutcome outcome = RunWell(*guest, guests::kPoke, {end - 16, 99});
  EXPECT_THAT(outcome.mmio, IsEmpty());
  EXPECT_THAT(outcome.reports, ElementsAre(77));
  EXPECT_EQ(guest->Word(end - 16), 99U);
}

TEST_P(GuestMemory, VcpusWorkSideBySideOnPagesOfTheirOwn) {
  constexpr unsigned kVcpus = 4;
  constexpr std::uint64_t kPages = 64;
  constexpr std::uint64_t kRounds = 200;
  constexpr std::uint64_t kShared = kStart;
  const auto guest = Make({.vcpus = kVcpus});
  ASSERT_NE(guest, nullptr);
  // Interleaved ranges: neighbours in one page table, faulted in by different vCPUs.
  std::vector<GuestVm::Arguments> arguments;
  for (std::uint64_t i = 0; i < kVcpus; ++i)
    arguments.push_back({kStart + (1 + i * kPages) * kPageSize, kPages, kRounds, kShared});
  for (const GuestOutcome& outcome : guest->Run(guests::kPercpu, arguments)) {
    EXPECT_EQ(outcome.error, "");
    EXPECT_THAT(outcome.reports, ElementsAre(kPages * kRounds));
  }
  EXPECT_EQ(guest->Word(kShared), kVcpus * kRounds);
  for (std::uint64_t page = 0; page < kVcpus * kPages; ++page)
    ASSERT_EQ(guest->Word(kStart + (1 + page) * kPageSize), kRounds) << "page " << page;
}

}  // namespace
}  // namespace holdfast::test
