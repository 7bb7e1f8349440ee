// SPDX-License-Identifier: Apache-2.0
// Guest RAM that goes back to the host while the guest has it mapped, with an unbound and with a
// bound memslot.
#include <abi.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <guest_images.h>
#include <holdfast/units.h>

#include <fstream>
#include <sstream>
#include <string>

#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

using ::testing::ElementsAre;

constexpr std::uint64_t kStart = GuestVm::kFreeRam;
constexpr std::uint64_t kSeed = 7;

// KiB of a field of /proc/meminfo.
std::uint64_t MemInfo(std::string_view field) {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with(field)) continue;
    std::uint64_t value = 0;
    std::istringstream(line.substr(field.size() + 1)) >> value;
    return value;
  }
  return 0;
}

using Discard = GuestTest;
INSTANTIATE_TEST_SUITE_P(, Discard, ::testing::Bool(), BoundName);

TEST_P(Discard, TheGuestSeesZeroesAndTheNeighboursAsBefore) {
  const auto guest = Make();
  ASSERT_NE(guest, nullptr);
  RunWell(*guest, guests::kMemwalk, {kStart, 64, kSeed});
  const std::uint64_t before = PresentPages(guest->ram().host_view());
  const std::uint64_t hole = kStart + 8 * kPageSize;
  ASSERT_OK(guest->space().Discard(GuestAddress(hole), 4 * kPageSize));
  EXPECT_EQ(PresentPages(guest->ram().host_view()), before - 4);
  const GuestOutcome seen = guest->Run(guests::kMemcheck, {hole, 1, kSeed});
  EXPECT_THAT(seen.reports, ElementsAre(hole, 0));
  EXPECT_EQ(guest->Word(hole + kPageSize), 0U) << "the host view";
  EXPECT_EQ(guest->Word(hole - kPageSize), guests::Pattern(kSeed, hole - kPageSize));
  EXPECT_EQ(guest->Word(hole + 4 * kPageSize), guests::Pattern(kSeed, hole + 4 * kPageSize));
}

TEST_P(Discard, TheGuestUsesThePagesAgain) {
  const auto guest = Make();
  ASSERT_NE(guest, nullptr);
  for (std::uint64_t round = 0; round < 3; ++round) {
    RunWell(*guest, guests::kMemwalk, {kStart, 256, kSeed + round});
    EXPECT_EQ(guest->Word(kStart), guests::Pattern(kSeed + round, kStart));
    ASSERT_OK(guest->space().Discard(GuestAddress(kStart), 256 * kPageSize));
    EXPECT_EQ(guest->Word(kStart), 0U);
  }
}

TEST_P(Discard, TheHostHasTheMemoryAgain) {
  constexpr std::uint64_t kSize = 512 * kMiB;
  const auto guest = Make({.ram_size = kSize + 16 * kMiB});
  ASSERT_NE(guest, nullptr);
  if (MemInfo("MemAvailable:") * kKiB < 2 * kSize) GTEST_SKIP() << "too little memory to measure";
  // Others take memory meanwhile, which may hide what comes back; once in a while they do not. Half
  // of it is no accident.
  constexpr int kTries = 5;
  std::uint64_t freed = 0;
  for (int i = 0; i < kTries && freed <= kSize / kKiB / 2; ++i) {
    RunWell(*guest, guests::kMemwalk, {kStart, kSize / kPageSize, kSeed});
    const std::uint64_t full = MemInfo("MemAvailable:");
    ASSERT_OK(guest->space().Discard(GuestAddress(kStart), kSize));
    const std::uint64_t empty = MemInfo("MemAvailable:");
    freed = empty - std::min(full, empty);
  }
  EXPECT_GT(freed, kSize / kKiB / 2);
  RecordProperty("freed_kib", std::to_string(freed));
  EXPECT_LT(PresentPages(guest->ram().host_view()), 16 * kMiB / kPageSize);
}

TEST_P(Discard, RangesThatAreNotRamAreRefused) {
  const auto guest = Make();
  ASSERT_NE(guest, nullptr);
  const std::uint64_t end = guest->ram().size();
  const struct {
    std::uint64_t start;
    std::uint64_t size;
  } cases[] = {{kStart + 1, kPageSize},   {kStart, 100},
               {end, kPageSize},          {end - kPageSize, 2 * kPageSize},
               {~0ULL - 4095, kPageSize}, {kStart, ~0ULL - 4095}};
  for (const auto& c : cases) {
    EXPECT_FALSE(guest->space().Discard(GuestAddress(c.start), c.size)) << c.start << "+" << c.size;
  }
}

}  // namespace
}  // namespace holdfast::test
