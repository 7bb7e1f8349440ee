// SPDX-License-Identifier: Apache-2.0
// Guests that run while their RAM is still being filled: what they find is what the source has, in
// memory of every kind, and what cannot be had keeps them waiting.
#include <abi.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <guest_images.h>
#include <holdfast/dirty_tracker.h>
#include <holdfast/lazy_population.h>
#include <holdfast/units.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fstream>
#include <future>
#include <thread>
#include <vector>

#include "support/kvm_fixture.h"

namespace holdfast::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::uint64_t kRam = 32 * kMiB;
constexpr std::uint64_t kChunk = 64 * kKiB;
constexpr std::uint64_t kFree = GuestVm::kFreeRam;
constexpr std::uint64_t kFreePages = (kRam - kFree) / kPageSize;
constexpr std::uint64_t kSeed = 7;

// What a VM's RAM held.
class CopySource : public PageSource {
 public:
  explicit CopySource(GuestVm& guest) : bytes_(kRam), reads_(kRam / kChunk) {
    std::ranges::copy(guest.ram().host_view(), bytes_.begin());
  }
  Status Read(const RamBlock&, std::uint64_t offset, std::span<std::byte> to) override {
    for (std::uint64_t at = offset; at < offset + to.size(); at += kChunk) {
      if (at == broken) return Fail(Errc::kMalformed, "the checksum is wrong");
    }
    for (std::uint64_t at = offset; at < offset + to.size(); at += kChunk)
      reads_[at / kChunk].fetch_add(1);
    std::memcpy(to.data(), bytes_.data() + offset, to.size());
    return {};
  }
  int most_reads() const {
    int most = 0;
    for (const auto& reads : reads_) most = std::max(most, reads.load());
    return most;
  }
  int reads(std::uint64_t chunk) const { return reads_[chunk].load(); }

  std::atomic<std::uint64_t> broken = ~0ULL;

 private:
  std::vector<std::byte> bytes_;
  std::vector<std::atomic<int>> reads_;
};

// Mappings of this process that show guest_memfd.
int GuestMemfdMappings() {
  std::ifstream maps("/proc/self/maps");
  int count = 0;
  for (std::string line; std::getline(maps, line);)
    count += line.find("[kvm-gmem]") != std::string::npos ? 1 : 0;
  return count;
}

enum class Kind { kUnbound, kBound, kMemfd };

class LazyGuest : public KvmTest, public ::testing::WithParamInterface<Kind> {
 protected:
  void SetUp() override {
    KvmTest::SetUp();
    if (IsSkipped()) return;
    if (const auto fd = LazyPopulation::OpenUserfaultfd(); !fd)
      GTEST_SKIP() << fd.error().ToString();
    MakeGuest(60);
  }
  void MakeGuest(double patience) {
    source_.reset();
    auto made = GuestVm::Create({.ram_size = kRam,
                                 .bound = GetParam() == Kind::kBound,
                                 .memfd = GetParam() == Kind::kMemfd,
                                 .vcpus = 4,
                                 .patience = patience});
    ASSERT_OK(made);
    guest_ = *std::move(made);
    guest_->WritePattern(kFree, kFreePages, kSeed);
    mappings_ = GuestMemfdMappings();
    source_.emplace(*guest_);
  }
  void Start(LazyPopulation::Options options) {
    auto started = LazyPopulation::Start(guest_->space(), *source_, std::move(options));
    ASSERT_OK(started);
    population_ = *std::move(started);
  }
  // Each vCPU checks its quarter of the free RAM.
  void CheckWithFourVcpus() {
    constexpr std::uint64_t kQuarter = kFreePages / 4;
    std::vector<GuestVm::Arguments> arguments;
    for (std::uint64_t i = 0; i < 4; ++i)
      arguments.push_back({kFree + i * kQuarter * kPageSize, kQuarter, kSeed});
    for (const GuestOutcome& outcome : guest_->Run(guests::kMemcheck, arguments)) {
      EXPECT_EQ(outcome.error, "");
      EXPECT_EQ(outcome.end_code, 0);
    }
  }

  std::unique_ptr<GuestVm> guest_;
  std::optional<CopySource> source_;
  std::unique_ptr<LazyPopulation> population_;
  int mappings_ = 0;
};

TEST_P(LazyGuest, FindsWhatTheSourceHas) {
  Start({.background = false});
  CheckWithFourVcpus();
  EXPECT_EQ(source_->most_reads(), 1);
  EXPECT_GT(population_->progress().faults, 0U);
  ASSERT_OK(population_->Finish());
  EXPECT_EQ(source_->most_reads(), 1);
  // The view is in one piece again, and the guest goes on with its memslots as they were.
  EXPECT_EQ(GuestMemfdMappings(), mappings_);
  RunWell(*guest_, guests::kMemcheck, {kFree, kFreePages, kSeed});
  RunWell(*guest_, guests::kMemwalk, {kFree, kFreePages, 9});
}

TEST_P(LazyGuest, RunsWhileTheRestIsFilledInTheBackground) {
  Start({.threads = 1});
  CheckWithFourVcpus();
  RunWell(*guest_, guests::kMemwalk, {kFree, 64, 9});
  ASSERT_OK(population_->Finish());
  RunWell(*guest_, guests::kMemcheck, {kFree + 64 * kPageSize, kFreePages - 64, kSeed});
  EXPECT_EQ(guest_->Word(kFree), guests::Pattern(9, kFree));
  EXPECT_EQ(source_->most_reads(), 1);
}

// What post-copy leaves to be asked for: some pages here and there.
TEST_P(LazyGuest, IsAskedOnlyForChunksThatSomethingIsMissingOf) {
  DirtyPages missing(guest_->space());
  std::vector<bool> absent(kRam / kChunk);
  for (std::uint64_t chunk = kFree / kChunk; chunk < kRam / kChunk; chunk += 3) {
    const std::uint64_t at = chunk * kChunk + 5 * kPageSize;
    if (at < kFree) continue;
    guest_->WritePattern(at, 2, kSeed + 1);  // not what the source has
    missing.Find(guest_->ram())->Set(at / kPageSize, 2);
    absent[chunk] = true;
  }
  Start({.background = false, .missing = &missing});
  CheckWithFourVcpus();
  ASSERT_OK(population_->Finish());
  for (std::uint64_t chunk = 0; chunk < absent.size(); ++chunk)
    EXPECT_EQ(source_->reads(chunk), absent[chunk] ? 1 : 0) << chunk;
  EXPECT_EQ(GuestMemfdMappings(), mappings_);
  RunWell(*guest_, guests::kMemwalk, {kFree, kFreePages, 9});
}

TEST_P(LazyGuest, IsTrackedMeanwhile) {
  Start({.background = false});
  auto tracker =
      DirtyTracker::Start(guest_->space(), guest_->vm(), {.method = DirtyMethod::kBitmap});
  ASSERT_OK(tracker);
  const auto collect = [&] {
    DirtyPages dirty(guest_->space());
    EXPECT_OK((*tracker)->Collect(dirty));
    PageBitmap& pages = *dirty.Find(guest_->ram());
    pages.Clear(0, kFree / kPageSize);  // stacks and the guest itself
    std::vector<std::uint64_t> found;
    pages.ForEachRun([&](const PageBitmap::Run& run) {
      for (std::uint64_t i = 0; i < run.count; ++i) found.push_back(run.first + i);
    });
    return found;
  };
  RunWell(*guest_, guests::kMemcheck, {kFree, 256, kSeed});
  // What the guest touches first KVM maps writable and logs, even if it only reads. What was filled
  // but not touched is not among it.
  EXPECT_LE(collect().size(), 256U);
  RunWell(*guest_, guests::kMemcheck, {kFree, 256, kSeed});
  EXPECT_EQ(guest_->Word(kFree + 600 * kPageSize), guests::Pattern(kSeed, kFree + 600 * kPageSize));
  EXPECT_THAT(collect(), IsEmpty()) << "to be filled is not to be written";
  RunWell(*guest_, guests::kPoke, {kFree + 500 * kPageSize, 1});
  EXPECT_THAT(collect(), ::testing::ElementsAre(kFree / kPageSize + 500));
  ASSERT_OK(population_->Finish());
  EXPECT_THAT(collect(), IsEmpty());
  RunWell(*guest_, guests::kPoke, {kFree + 501 * kPageSize, 1});
  EXPECT_THAT(collect(), ::testing::ElementsAre(kFree / kPageSize + 501));
  ASSERT_OK((*tracker)->Stop());
  RunWell(*guest_, guests::kMemcheck, {kFree, 500, kSeed});
}

TEST_P(LazyGuest, WaitsForWhatCannotBeReadUntilItCan) {
  constexpr std::uint64_t kBroken = 8 * kMiB;
  source_->broken = kBroken;
  std::promise<std::string> error;
  Start({.background = false,
         .on_error = [&](const RamBlock& block, std::uint64_t offset, const Error& why) {
           EXPECT_EQ(&block, &guest_->ram());
           EXPECT_EQ(offset, kBroken);
           error.set_value(why.ToString());
         }});
  std::atomic<bool> ended = false;
  std::thread vcpu([&] {
    RunWell(*guest_, guests::kMemcheck, {kBroken - 4 * kPageSize, 8, kSeed});
    ended = true;
  });
  auto told = error.get_future();
  const bool was_told =
      told.wait_for(std::chrono::duration<double>(ScaledSeconds(120))) == std::future_status::ready;
  EXPECT_TRUE(was_told);
  if (was_told) {
    EXPECT_THAT(told.get(),
                AllOf(HasSubstr("'ram' at 0x800000"), HasSubstr("the checksum is wrong")));
  }
  EXPECT_FALSE(ended);
  source_->broken = ~0ULL;
  population_->Retry();
  vcpu.join();
  ASSERT_OK(population_->Finish());
}

TEST_P(LazyGuest, IsInterruptedWhileItWaits) {
  constexpr std::uint64_t kBroken = 8 * kMiB;
  MakeGuest(1);
  source_->broken = kBroken;
  Start({.background = false});
  const GuestOutcome outcome = guest_->Run(guests::kMemcheck, {kBroken - 4 * kPageSize, 8, kSeed});
  EXPECT_THAT(outcome.error, HasSubstr("did not end in time"));
  // It goes on where it was.
  source_->broken = ~0ULL;
  population_->Retry();
  ASSERT_OK(population_->Finish());
  RunWell(*guest_, guests::kMemcheck, {kBroken - 4 * kPageSize, 8, kSeed});
}

TEST_P(LazyGuest, NeverSeesZeroesInPlaceOfWhatWasNotPopulated) {
  constexpr std::uint64_t kBroken = 8 * kMiB;
  source_->broken = kBroken;
  std::promise<void> error;
  Start({.background = false,
         .on_error = [&](const RamBlock&, std::uint64_t, const Error&) { error.set_value(); }});
  GuestOutcome outcome;
  std::thread vcpu(
      [&] { outcome = guest_->Run(guests::kMemcheck, {kBroken - 4 * kPageSize, 8, kSeed}); });
  EXPECT_EQ(error.get_future().wait_for(std::chrono::duration<double>(ScaledSeconds(120))),
            std::future_status::ready);
  // Against the rules with the vCPU still in it: it must not hang, and not see anything else.
  population_.reset();
  vcpu.join();
  EXPECT_NE(outcome.error, "");
  EXPECT_THAT(outcome.reports, IsEmpty());
}

// Says of each word where it is.
class OffsetSource : public PageSource {
 public:
  Status Read(const RamBlock&, std::uint64_t offset, std::span<std::byte> to) override {
    for (std::uint64_t at = 0; at < to.size(); at += 8) {
      const std::uint64_t word = offset + at;
      std::memcpy(to.data() + at, &word, sizeof word);
    }
    return {};
  }
};

using LazyMappings = KvmTest;

TEST_F(LazyMappings, StayFewHoweverFarApartTheFaultsAre) {
  if (const auto fd = LazyPopulation::OpenUserfaultfd(); !fd) GTEST_SKIP() << fd.error().ToString();
  constexpr std::uint64_t kSize = 96 * kMiB;
  auto made = GuestVm::Create({.ram_size = kSize});
  ASSERT_OK(made);
  GuestVm& guest = **made;
  const int before = GuestMemfdMappings();
  OffsetSource source;
  auto population =
      LazyPopulation::Start(guest.space(), source, {.chunk = kPageSize, .background = false});
  ASSERT_OK(population);
  // Every second page would make 12288 pieces.
  const std::span<const std::byte> view = guest.ram().guest_view();
  for (std::uint64_t at = 0; at < kSize; at += 2 * kPageSize) {
    std::uint64_t word = 0;
    std::memcpy(&word, view.data() + at, sizeof word);
    ASSERT_EQ(word, at);
  }
  EXPECT_LE(GuestMemfdMappings(), 8192 + before);
  ASSERT_OK((*population)->Finish());
  EXPECT_EQ(GuestMemfdMappings(), before);
}

std::string KindName(const ::testing::TestParamInfo<Kind>& kind) {
  if (kind.param == Kind::kMemfd) return "memfd";
  return kind.param == Kind::kBound ? "bound" : "unbound";
}
INSTANTIATE_TEST_SUITE_P(, LazyGuest, ::testing::Values(Kind::kUnbound, Kind::kBound, Kind::kMemfd),
                         KindName);

}  // namespace
}  // namespace holdfast::test
