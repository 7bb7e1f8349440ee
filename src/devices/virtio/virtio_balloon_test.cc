// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/virtio_balloon.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>
#include <sys/mman.h>

#include <memory>
#include <numeric>

#include "devices/virtio/test_driver.h"

namespace holdfast::devices::virtio {
namespace {

using ::testing::ElementsAre;

constexpr unsigned kInflate = 0;
constexpr unsigned kDeflate = 1;
constexpr unsigned kStats = 2;
constexpr unsigned kReport = 3;
constexpr std::uint64_t kRam = 16 * kMiB;  // the test's memory
constexpr std::uint64_t kNoReporting = ~(1ULL << 5);
constexpr std::uint64_t kNoStats = ~(1ULL << 1);

class VirtioBalloonTest : public ::testing::Test {
 protected:
  void Make(const VirtioBalloon::Config& config, std::uint64_t features = ~0ULL) {
    if (loop_ == nullptr) loop_ = *EventLoop::Create();
    driver_.reset();
    services_.ram_size = kRam;
    balloon_ = std::make_unique<VirtioBalloon>(
        DeviceThread(*loop_), "b0", services_, config,
        [this](std::uint64_t actual) { changes_.push_back(actual); });
    driver_ = std::make_unique<TestDriver>(*balloon_, *loop_,
                                           features & ~std::uint64_t{kFeatureRingPacked});
    ASSERT_TRUE(driver_->Start());
    // All of it is there from now on.
    std::memset(driver_->ram().bytes().data() + 8 * kMiB, 0xaa, 8 * kMiB);
  }
  void TearDown() override {
    driver_.reset();
    balloon_.reset();
  }

  // Whether the page is in memory.
  bool Present(std::uint64_t address) {
    unsigned char there = 0;
    EXPECT_EQ(::mincore(driver_->ram().bytes().data() + address, kPageSize, &there), 0);
    return (there & 1) != 0;
  }
  void Inflate(std::vector<std::uint32_t> pages, unsigned queue = kInflate) {
    const auto answer = driver_->Ask(queue, std::as_bytes(std::span(pages)));
    ASSERT_TRUE(answer) << answer.error().ToString();
    EXPECT_EQ(answer->written, 0U);
  }
  void WriteConfig(std::uint64_t offset, std::uint32_t value) {
    balloon_->WriteConfig(offset, std::as_bytes(std::span(&value, 1)));
  }
  std::uint32_t ReadConfig(std::uint64_t offset) {
    std::uint32_t value = 0;
    balloon_->ReadConfig(offset, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  // Sends statistics; the device keeps the buffer.
  void SendStats(std::span<const std::byte> bytes) {
    const GuestAddress at = driver_->ram().Put(bytes);
    driver_->Send(kStats, std::vector<TestBuffer>{
                              {.address = at, .length = static_cast<std::uint32_t>(bytes.size())}});
    driver_->Kick(kStats);
  }

  std::unique_ptr<EventLoop> loop_;
  MachineServices services_;
  std::vector<std::uint64_t> changes_;
  std::unique_ptr<VirtioBalloon> balloon_;
  std::unique_ptr<TestDriver> driver_;
};

TEST_F(VirtioBalloonTest, PagesTheGuestGivesAreTheHostsAgain) {
  Make({});
  constexpr std::uint32_t kFirst = 9 * kMiB / kPageSize;
  // In any order, twice, with a gap.
  Inflate({kFirst + 2, kFirst, kFirst + 1, kFirst + 1, kFirst + 4});
  for (const auto& [page, there] :
       {std::pair{0U, false}, {1U, false}, {2U, false}, {3U, true}, {4U, false}, {5U, true}}) {
    EXPECT_EQ(Present((kFirst + page) * kPageSize), there) << page;
  }
  EXPECT_EQ(driver_->ram().Load<std::uint8_t>(GuestAddress(kFirst * kPageSize)), 0) << "zeroes";
  Inflate({kFirst}, kDeflate);
  EXPECT_EQ(driver_->needs_reset(), "");
}

TEST_F(VirtioBalloonTest, PagesThatAreNoRamAreNobodys) {
  Make({});
  constexpr std::uint32_t kFirst = 9 * kMiB / kPageSize;
  Inflate({0xffffffff, kRam / kPageSize, 0x80000000, kFirst});
  EXPECT_FALSE(Present(kFirst * kPageSize)) << "the others are taken";
  EXPECT_TRUE(Present(kRam - kPageSize));
  const auto odd = driver_->Ask(kInflate, BytesOf("abc"));
  ASSERT_TRUE(odd);
  EXPECT_EQ(driver_->needs_reset(), "");
}

TEST_F(VirtioBalloonTest, ALongRequestIsBoundedAndAnswered) {
  Make({});
  std::vector<std::uint32_t> pages(1 * kMiB, 9 * kMiB / kPageSize);
  Inflate(pages);
  EXPECT_FALSE(Present(9 * kMiB));
}

TEST_F(VirtioBalloonTest, ReportedRangesAreTheHostsAgain) {
  Make({.free_page_reporting = true});
  EXPECT_EQ(balloon_->queue_sizes().size(), 4U);
  const std::vector<TestBuffer> ranges = {
      {.address = GuestAddress(10 * kMiB), .length = 2 * kMiB, .device_writes = true},
      {.address = GuestAddress(13 * kMiB + 100), .length = 2 * kPageSize, .device_writes = true}};
  driver_->Send(kReport, ranges);
  driver_->Kick(kReport);
  ASSERT_TRUE(driver_->RunUntil([&] { return driver_->Take(kReport).has_value(); }));
  EXPECT_TRUE(Present(10 * kMiB - kPageSize));
  EXPECT_FALSE(Present(10 * kMiB));
  EXPECT_FALSE(Present(12 * kMiB - kPageSize));
  EXPECT_TRUE(Present(12 * kMiB));
  EXPECT_TRUE(Present(13 * kMiB)) << "only a part of the page was reported";
  EXPECT_FALSE(Present(13 * kMiB + kPageSize));
  EXPECT_TRUE(Present(13 * kMiB + 2 * kPageSize));
}

TEST_F(VirtioBalloonTest, PoisonedPagesStay) {
  Make({.free_page_reporting = true});
  WriteConfig(12, 0xaaaaaaaa);
  const std::vector<TestBuffer> ranges = {
      {.address = GuestAddress(10 * kMiB), .length = kPageSize, .device_writes = true}};
  driver_->Send(kReport, ranges);
  driver_->Kick(kReport);
  ASSERT_TRUE(driver_->RunUntil([&] { return driver_->Take(kReport).has_value(); }));
  EXPECT_TRUE(Present(10 * kMiB));
  EXPECT_EQ(ReadConfig(12), 0xaaaaaaaaU);
}

TEST_F(VirtioBalloonTest, QueuesAreCountedWithoutThoseNobodyAgreedOn) {
  Make({.free_page_reporting = true}, kNoStats);
  const std::vector<TestBuffer> ranges = {
      {.address = GuestAddress(10 * kMiB), .length = kPageSize, .device_writes = true}};
  driver_->Send(2, ranges);
  driver_->Kick(2);
  ASSERT_TRUE(driver_->RunUntil([&] { return driver_->Take(2).has_value(); }));
  EXPECT_FALSE(Present(10 * kMiB));
  Make({.free_page_reporting = true}, kNoReporting);
  driver_->Send(kReport, ranges);
  driver_->Kick(kReport);
  EXPECT_FALSE(driver_->Take(kReport).has_value()) << "a queue that is none";
}

TEST_F(VirtioBalloonTest, TheTargetIsPagesToGiveAndTheGuestIsTold) {
  Make({});
  const unsigned before = driver_->config_changes();
  balloon_->SetTarget(12 * kMiB);
  EXPECT_EQ(ReadConfig(0), 4 * kMiB / kPageSize);
  EXPECT_GT(driver_->config_changes(), before);
  balloon_->SetTarget(100 * kMiB);
  EXPECT_EQ(ReadConfig(0), 0U) << "more than there is: all";
  WriteConfig(0, 77);
  EXPECT_EQ(ReadConfig(0), 0U) << "not the guest's to write";
}

TEST_F(VirtioBalloonTest, ChangesOfTheSizeAreToldAtMostOnceASecond) {
  Make({});
  EXPECT_EQ(balloon_->actual(), kRam);
  for (std::uint32_t pages = 1; pages <= 100; ++pages) WriteConfig(4, pages);
  EXPECT_EQ(balloon_->actual(), kRam - 100 * kPageSize);
  ASSERT_TRUE(driver_->RunUntil([&] { return !changes_.empty(); }));
  WriteConfig(4, 200);
  ASSERT_TRUE(driver_->RunUntil([&] { return changes_.size() >= 2; }));
  EXPECT_THAT(changes_, ElementsAre(kRam - 100 * kPageSize, kRam - 200 * kPageSize));
  WriteConfig(4, 0xffffffff);
  EXPECT_EQ(balloon_->actual(), 0U) << "more than there is";
  driver_->Stop();
  EXPECT_EQ(balloon_->actual(), kRam) << "a new driver starts with all of it";
}

TEST_F(VirtioBalloonTest, StatisticsAreKeptAndAskedForAgain) {
  Make({});
  std::vector<std::byte> bytes;
  const auto add = [&](std::uint16_t tag, std::uint64_t value) {
    const auto a = BytesOfValue(tag);
    const auto b = BytesOfValue(value);
    bytes.insert(bytes.end(), a.begin(), a.end());
    bytes.insert(bytes.end(), b.begin(), b.end());
  };
  add(4, 111);
  add(0x4444, 1);  // unknown
  add(5, 222);
  bytes.push_back(std::byte{0});  // the begin of another
  EXPECT_EQ(balloon_->stats().last_update, 0U);
  SendStats(bytes);
  const Balloon::GuestStats stats = balloon_->stats();
  EXPECT_EQ(stats.values[4], 111U);
  EXPECT_EQ(stats.values[5], 222U);
  EXPECT_EQ(stats.values[0], std::nullopt);
  EXPECT_GT(stats.last_update, 0U);
  EXPECT_EQ(Balloon::StatName(4), "stat-free-memory");

  EXPECT_FALSE(driver_->Take(kStats).has_value()) << "kept until it is wanted";
  balloon_->SetPollingInterval(1);
  EXPECT_TRUE(driver_->Take(kStats).has_value());
  SendStats(bytes);
  ASSERT_TRUE(driver_->RunUntil([&] { return driver_->Take(kStats).has_value(); }))
      << "after the interval";
  SendStats(bytes);
  SendStats(bytes);  // a second buffer: the first goes back
  EXPECT_TRUE(driver_->RunUntil([&] { return driver_->Take(kStats).has_value(); }));
}

TEST_F(VirtioBalloonTest, OnlyOffersWhatIsSwitchedOn) {
  Make({.deflate_on_oom = true, .free_page_reporting = false, .page_poison = false});
  EXPECT_EQ(balloon_->features(), 0x6U);
  EXPECT_EQ(services_.balloon, balloon_.get());
  driver_.reset();
  balloon_.reset();
  EXPECT_EQ(services_.balloon, nullptr);
}

}  // namespace
}  // namespace holdfast::devices::virtio
