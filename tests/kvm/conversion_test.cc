// SPDX-License-Identifier: Apache-2.0
// Private and shared memory with real guests: what the engines promise, seen from both sides.
#include <abi.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <guest_images.h>
#include <holdfast/guest_converter.h>
#include <holdfast/units.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <thread>

#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

using enum MemoryAttribute;
using enum ConversionEngineKind;
using ::testing::ElementsAre;

constexpr std::uint64_t kStart = GuestVm::kFreeRam;
constexpr std::uint64_t kSeed = 11;

// Mappings of this process. One more each time is what a VMA that splits looks like.
std::size_t Mappings() {
  std::ifstream file("/proc/self/maps");
  return static_cast<std::size_t>(
      std::count(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>(), '\n'));
}

// Bytes of this process that lie in no file.
std::uint64_t AnonymousMemory() {
  std::ifstream file("/proc/self/status");
  std::uint64_t kib = 0;
  for (std::string word; file >> word;) {
    if (word == "RssAnon:") file >> kib;
  }
  return kib * kKiB;
}

// Whether the host gets at a page by its address, asked of the kernel, which says no where this
// process would be stopped.
bool HostReaches(const GuestVm& guest, std::uint64_t offset) {
  std::byte* const page = guest.ram().host_view().data() + AlignDown(offset, kPageSize);
  return ::madvise(page, kPageSize, MADV_POPULATE_READ) == 0;
}

// The engines that the running kernel can have at all.
std::vector<ConversionEngineKind> Engines() {
  const auto system = kvm::System::Open();
  const auto types =
      system ? static_cast<unsigned>(system->CheckExtension(kvm::abi::kCapVmTypes)) : 0U;
  if ((types >> kvm::abi::kVmTypeSwProtected & 1U) == 0) return {kGuard};
  return {kGuard, kAttributes};
}

class Conversion : public KvmTest, public ::testing::WithParamInterface<ConversionEngineKind> {
 protected:
  std::unique_ptr<GuestVm> Make(GuestVm::Options options = {}) {
    options.conversion = GetParam();
    auto guest = GuestVm::Create(options);
    EXPECT_OK(guest);
    return guest ? *std::move(guest) : nullptr;
  }
  static std::uint64_t Convert(GuestVm& guest, std::uint64_t from, std::uint64_t pages,
                               MemoryAttribute to) {
    const auto outcome = guest.converter().Convert(GuestAddress(from), pages * kPageSize, to);
    EXPECT_OK(outcome);
    EXPECT_FALSE(outcome && outcome->busy);
    return outcome ? outcome->changed_pages : 0;
  }
  bool in_place() const { return GetParam() != kAttributes; }
};
INSTANTIATE_TEST_SUITE_P(, Conversion, ::testing::ValuesIn(Engines()),
                         [](const auto& engine) { return std::string(ToString(engine.param)); });

TEST_P(Conversion, TheGuestReachesPrivateMemoryAndTheHostDoesNot) {
  const auto guest = Make();
  ASSERT_NE(guest, nullptr);
  EXPECT_EQ(Convert(*guest, kStart, 16, kPrivate), 16U);
  RunWell(*guest, guests::kMemwalk, {kStart, 16, kSeed});
  for (std::uint64_t page = 0; page < 16; ++page)
    EXPECT_FALSE(HostReaches(*guest, kStart + page * kPageSize)) << page;
  EXPECT_TRUE(HostReaches(*guest, kStart - kPageSize));
  EXPECT_TRUE(HostReaches(*guest, kStart + 16 * kPageSize));
  std::uint64_t word = 0;
  const auto read =
      guest->space().Read(GuestAddress(kStart), std::as_writable_bytes(std::span(&word, 1)));
  ASSERT_FALSE(read.has_value());
  EXPECT_EQ(read.error().code(), Errc::kPrivate);
  EXPECT_EQ(guest->space().private_refusals(), 1U);

  EXPECT_EQ(Convert(*guest, kStart, 16, kShared), 16U);
  EXPECT_TRUE(HostReaches(*guest, kStart));
}

TEST_P(Conversion, ContentsSurviveInPlaceAndAreGoneInTwoLayers) {
  const auto guest = Make();
  ASSERT_NE(guest, nullptr);
  guest->WritePattern(kStart, 8, kSeed);
  EXPECT_EQ(Convert(*guest, kStart, 8, kPrivate), 8U);
  const GuestOutcome seen = guest->Run(guests::kMemcheck, {kStart, 8, kSeed});
  EXPECT_EQ(seen.error, "");
  ASSERT_FALSE(seen.reports.empty());
  EXPECT_EQ(seen.reports[0], in_place() ? 0U : kStart);  // memcheck: the first wrong address
  RunWell(*guest, guests::kMemwalk, {kStart, 8, kSeed + 1});
  EXPECT_EQ(Convert(*guest, kStart, 8, kShared), 8U);
  EXPECT_EQ(guest->Word(kStart), in_place() ? guests::Pattern(kSeed + 1, kStart) : 0U);
}

TEST_P(Conversion, FreeingAndAllocatingNeverChangeAnAttribute) {
  const auto guest = Make();
  ASSERT_NE(guest, nullptr);
  guest->WritePattern(kStart, 4, kSeed);
  Convert(*guest, kStart + kPageSize, 2, kPrivate);
  ASSERT_OK(guest->space().Discard(GuestAddress(kStart), 4 * kPageSize));
  EXPECT_TRUE(HostReaches(*guest, kStart));
  EXPECT_FALSE(HostReaches(*guest, kStart + kPageSize));
  EXPECT_FALSE(HostReaches(*guest, kStart + 2 * kPageSize));
  if (guest->ram().guest_memfd() != nullptr) {
    ASSERT_OK(guest->ram().guest_memfd()->Allocate(kStart, 4 * kPageSize));
    EXPECT_FALSE(HostReaches(*guest, kStart + kPageSize));
  }
  const GuestOutcome seen = guest->Run(guests::kMemwalk, {kStart, 4, kSeed});
  EXPECT_EQ(seen.end_code, 0) << seen.error;
  EXPECT_FALSE(HostReaches(*guest, kStart + kPageSize)) << "allocated by the guest";
}

// KVM itself writes through the guest view where it emulates for the guest, so that the view's page
// tables show private pages too.
TEST_P(Conversion, FreedMemoryStaysClosedAlsoWhereTheGuestViewShowsIt) {
  const auto guest = Make();
  ASSERT_NE(guest, nullptr);
  if (!in_place()) return;  // one view, of the shared layer alone
  Convert(*guest, kStart, 4, kPrivate);
  guest->ram().guest_view()[kStart + kPageSize] = std::byte{1};
  ASSERT_OK(guest->space().Discard(GuestAddress(kStart), 8 * kPageSize));
  for (std::uint64_t page = 0; page < 4; ++page)
    EXPECT_FALSE(HostReaches(*guest, kStart + page * kPageSize)) << page;
  EXPECT_TRUE(HostReaches(*guest, kStart + 4 * kPageSize));
}

TEST_P(Conversion, ADeviceThatHoldsAPageIsWaitedFor) {
  const auto guest = Make();
  ASSERT_NE(guest, nullptr);
  GuestIoVec held;
  ASSERT_OK(
      guest->space().Pin(GuestAddress(kStart + 5 * kPageSize), 100, MemoryAccess::kWrite, held));
  auto outcome = guest->converter().Convert(GuestAddress(kStart), 16 * kPageSize, kPrivate);
  ASSERT_OK(outcome);
  EXPECT_EQ(outcome->busy, GuestAddress(kStart + 5 * kPageSize));
  EXPECT_TRUE(HostReaches(*guest, kStart)) << "nothing has changed";
  const std::byte data[100] = {std::byte{7}};
  EXPECT_EQ(held.CopyIn(0, data), sizeof data) << "the device goes on";
  held = {};
  EXPECT_EQ(Convert(*guest, kStart, 16, kPrivate), 16U);
}

using ConversionInPlace = Conversion;
INSTANTIATE_TEST_SUITE_P(, ConversionInPlace, ::testing::Values(kGuard),
                         [](const auto& engine) { return std::string(ToString(engine.param)); });

// The whole of it: four vCPUs convert random ranges of their own, both ways, while they write and
// check every page; the host looks at random pages at random moments.
TEST_P(ConversionInPlace, NothingIsEverMismatchedWhileFourVcpusConvert) {
  constexpr unsigned kVcpus = 4;
  constexpr std::uint64_t kPagesEach = 512;
  const bool is_long = std::getenv("HOLDFAST_TEST_LONG") != nullptr;
  const std::uint64_t rounds = is_long ? 20'000 : 1'500;
  const auto guest = Make({.vcpus = kVcpus});
  ASSERT_NE(guest, nullptr);

  const std::uint64_t pages = kStart + kVcpus * kPageSize;  // behind the mailboxes
  std::vector<GuestVm::Arguments> arguments;
  for (std::uint64_t i = 0; i < kVcpus; ++i) {
    arguments.push_back({.a = pages + i * kPagesEach * kPageSize,
                         .b = kPagesEach,
                         .c = rounds,
                         .d = kStart + i * kPageSize,
                         .e = kSeed + i});
  }
  const std::size_t mappings = Mappings();
  const std::uint64_t anonymous = AnonymousMemory();
  std::atomic<bool> done{false};
  std::uint64_t looked = 0;
  std::uint64_t caught = 0;
  std::size_t most_mappings = 0;
  std::thread host([&] {
    std::mt19937_64 random(kSeed);
    while (!done.load()) {
      const std::uint64_t page = pages + random() % (kVcpus * kPagesEach) * kPageSize;
      if (random() % 4 == 0) {
        // As a device would: what it holds stays shared, and the guest is told that it is busy.
        GuestIoVec held;
        if (guest->space().Pin(GuestAddress(page), kPageSize, MemoryAccess::kRead, held)) {
          EXPECT_TRUE(HostReaches(*guest, page));
        }
      }
      const std::unique_lock nobody_converts(guest->conversions());
      const bool is_private =
          guest->ram().conversion()->attributes().At(page / kPageSize) == kPrivate;
      ASSERT_EQ(HostReaches(*guest, page), !is_private) << "page " << page;
      if (is_private) {
        ++caught;
      } else {
        const std::uint64_t word = guest->Word(page);
        ASSERT_TRUE(word == 0 || (word & ~0xffULL) == guests::Stamp(page, 0)) << word;
      }
      ++looked;
      if (looked % 64 == 0) most_mappings = std::max(most_mappings, Mappings());
    }
  });
  const std::vector<GuestOutcome> outcomes = guest->Run(guests::kConvert, arguments);
  done.store(true);
  host.join();
  std::uint64_t converted = 0;
  for (const GuestOutcome& outcome : outcomes) {
    EXPECT_EQ(outcome.error, "");
    EXPECT_EQ(outcome.end_code, 0);
    ASSERT_EQ(outcome.reports.size(), 3U);
    EXPECT_EQ(outcome.reports[0], 0U) << "pages with other contents than they were given";
    converted += outcome.reports[1];
  }
  RecordProperty("conversions", std::to_string(converted));
  RecordProperty("looked", std::to_string(looked));
  EXPECT_GT(converted, rounds);
  EXPECT_GT(looked, 0U);
  EXPECT_GT(caught, 0U);
  // Threads come with a stack and an arena each; conversions come by the thousand.
  EXPECT_LT(most_mappings, mappings + 8 * kVcpus);
  // Memory is there once: a page in the file for each that was touched, and no copy of any in this
  // process.
  const std::uint64_t touched = (pages + kVcpus * kPagesEach * kPageSize) / kPageSize;
  EXPECT_LE(PresentPages(guest->ram().guest_view()), touched);
  EXPECT_LT(AnonymousMemory(), anonymous + kVcpus * kPagesEach * kPageSize / 2);
}

}  // namespace
}  // namespace holdfast::test
