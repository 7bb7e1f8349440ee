// SPDX-License-Identifier: Apache-2.0
// Free page hinting through the whole balloon, as a driver sees it.
#include "devices/virtio/free_page_hints.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include "devices/device_model.h"
#include "devices/virtio/test_driver.h"
#include "devices/virtio/virtio_balloon.h"

namespace holdfast::devices::virtio {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using State = Balloon::HintState;
using NamedRange = std::pair<std::uint64_t, std::uint64_t>;

constexpr unsigned kHints = 3;  // behind inflate, deflate and statistics
constexpr std::uint32_t kStop = 0;
constexpr std::uint32_t kDone = 1;
constexpr std::uint64_t kFree = 8 * kMiB;

class FreePageHintsTest : public ::testing::Test {
 protected:
  void Make(bool hints = true, std::uint64_t features = ~std::uint64_t{kFeatureRingPacked}) {
    driver_.reset();
    services_.ram_size = 16 * kMiB;
    balloon_ = std::make_unique<VirtioBalloon>(
        DeviceThread(*loop_), "b0", services_,
        VirtioBalloon::Config{.free_page_hint = hints, .free_page_reporting = true},
        VirtioBalloon::Changed());
    driver_ = std::make_unique<TestDriver>(*balloon_, *loop_, features);
    ASSERT_TRUE(driver_->Start());
  }
  void TearDown() override {
    driver_.reset();
    balloon_.reset();
  }
  Status Start() {
    return balloon_->StartFreePageHinting(
        [this](RamBlock& block, std::uint64_t offset, std::uint64_t size) {
          EXPECT_NE(block.size(), 0U);
          named_.emplace_back(offset, size);
        });
  }
  std::uint32_t Command() {
    std::uint32_t value = 0;
    balloon_->ReadConfig(8, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  void SendId(std::uint32_t id) {
    ASSERT_TRUE(driver_->Ask(kHints, std::as_bytes(std::span(&id, 1))));
  }
  void SendFree(std::uint64_t address, std::uint32_t size) {
    driver_->Send(kHints,
                  std::vector<TestBuffer>{
                      {.address = GuestAddress(address), .length = size, .device_writes = true}});
    ASSERT_TRUE(driver_->RunUntil([&] { return driver_->Take(kHints).has_value(); }));
  }

  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  MachineServices services_;
  std::unique_ptr<VirtioBalloon> balloon_;
  std::unique_ptr<TestDriver> driver_;
  std::vector<NamedRange> named_;
};

TEST_F(FreePageHintsTest, ARoundNamesTheGuestsFreePages) {
  Make();
  EXPECT_EQ(balloon_->queue_sizes().size(), 5U);
  EXPECT_EQ(Command(), kStop);
  const unsigned before = driver_->config_changes();
  ASSERT_TRUE(Start());
  const std::uint32_t id = Command();
  EXPECT_GT(id, kDone) << "neither STOP nor DONE";
  EXPECT_GT(driver_->config_changes(), before) << "the guest is told";
  EXPECT_EQ(balloon_->free_page_hinting(), State::kAsked);

  SendId(id);
  EXPECT_EQ(balloon_->free_page_hinting(), State::kNaming);
  SendFree(kFree, 2 * kMiB);
  SendFree(kFree + 3 * kMiB + 100, 2 * kPageSize);  // one whole page in it
  SendFree(kFree + 4 * kMiB + 1, kPageSize);        // none
  EXPECT_THAT(named_, ElementsAre(NamedRange(kFree, 2 * kMiB),
                                  NamedRange(kFree + 3 * kMiB + kPageSize, kPageSize)));
  SendId(kStop);
  EXPECT_EQ(balloon_->free_page_hinting(), State::kNamed);
  SendFree(kFree, kPageSize);
  EXPECT_EQ(named_.size(), 2U) << "after its STOP nothing counts";

  balloon_->FinishFreePageHinting();
  EXPECT_EQ(Command(), kDone);
  EXPECT_EQ(balloon_->free_page_hinting(), State::kIdle);
  EXPECT_EQ(driver_->needs_reset(), "");
}

TEST_F(FreePageHintsTest, NothingHappensToThePages) {
  Make();
  driver_->ram().Store<std::uint32_t>(GuestAddress(kFree), 0x12345678);
  ASSERT_TRUE(Start());
  SendId(Command());
  SendFree(kFree, kPageSize);
  EXPECT_EQ(driver_->ram().Load<std::uint32_t>(GuestAddress(kFree)), 0x12345678U);
}

TEST_F(FreePageHintsTest, HintsOfAnotherRoundCountForNothing) {
  Make();
  SendId(77);
  SendFree(kFree, kPageSize);
  ASSERT_TRUE(Start());
  const std::uint32_t first = Command();
  SendFree(kFree, kPageSize);
  SendId(first + 1);
  SendFree(kFree, kPageSize);
  EXPECT_EQ(balloon_->free_page_hinting(), State::kAsked) << "a stale answer changes nothing";
  ASSERT_TRUE(Start());
  EXPECT_NE(Command(), first);
  SendId(first);
  SendFree(kFree, kPageSize);
  EXPECT_THAT(named_, IsEmpty());
  SendId(Command());
  SendFree(kFree, kPageSize);
  EXPECT_EQ(named_.size(), 1U);
}

TEST_F(FreePageHintsTest, AStopEndsARoundAtOnceAndForGoodOnlyWhenFinished) {
  Make();
  balloon_->StopFreePageHinting();
  balloon_->FinishFreePageHinting();
  EXPECT_EQ(Command(), kStop) << "there was no round";
  ASSERT_TRUE(Start());
  const std::uint32_t first = Command();
  SendId(first);
  balloon_->StopFreePageHinting();
  EXPECT_EQ(Command(), kStop);
  EXPECT_EQ(balloon_->free_page_hinting(), State::kStopped);
  SendFree(kFree, kPageSize);
  SendId(first);
  SendFree(kFree, kPageSize);
  EXPECT_THAT(named_, IsEmpty());
  ASSERT_TRUE(Start());
  SendId(Command());
  SendFree(kFree, kPageSize);
  EXPECT_EQ(named_.size(), 1U);
  balloon_->FinishFreePageHinting();
  SendFree(kFree, kPageSize);
  EXPECT_EQ(named_.size(), 1U);
}

TEST_F(FreePageHintsTest, ANewGuestWasNotAsked) {
  Make();
  ASSERT_TRUE(Start());
  const std::uint32_t id = Command();
  SendId(id);
  driver_->Stop();
  EXPECT_FALSE(Start()) << "there is no driver";
  ASSERT_TRUE(driver_->Start());
  EXPECT_EQ(Command(), kStop);
  SendId(id);
  SendFree(kFree, kPageSize);
  EXPECT_THAT(named_, IsEmpty());
  ASSERT_TRUE(Start());
  EXPECT_NE(Command(), id) << "ids are not used twice";
}

TEST_F(FreePageHintsTest, AnIdThatIsTooShortBreaksTheDevice) {
  Make();
  EXPECT_FALSE(driver_->Ask(kHints, BytesOf("abc")));
  EXPECT_THAT(driver_->needs_reset(), HasSubstr("too short"));
}

TEST_F(FreePageHintsTest, WithoutTheFeatureNobodyCanBeAsked) {
  constexpr std::uint64_t kNoHints = ~(1ULL << 3);
  for (const bool offered : {false, true}) {
    Make(offered, ~std::uint64_t{kFeatureRingPacked} & kNoHints);
    EXPECT_EQ((balloon_->features() & 8) != 0, offered);
    const Status asked = Start();
    ASSERT_FALSE(asked);
    EXPECT_EQ(asked.error().code(), Errc::kUnsupported);
    EXPECT_EQ(Command(), kStop);
    // The queue behind statistics is then that of reporting.
    SendFree(kFree, kPageSize);
    EXPECT_THAT(named_, IsEmpty());
  }
}

TEST(BalloonModelTest, HintsNeedAThread) {
  const auto check = [](std::string_view words) {
    const Status checked = kVirtioBalloonPci.check(*object::ParseKeyValues(words));
    return checked ? std::string() : checked.error().message();
  };
  EXPECT_EQ(check("free-page-hint=on"), "'free-page-hint' requires 'iothread' to be set");
  EXPECT_EQ(check("free-page-hint=on,iothread=io0"), "");
  EXPECT_EQ(check("iothread=io0"), "");
}

// On a thread of its own, with the main thread starting and stopping rounds under the guest's
// hands.
TEST(BalloonThreadTest, AfterAStopNoHintArrives) {
  object::IoThread io("io0");
  const DeviceThread thread(**io.Loop(), io);
  MachineServices services;
  services.ram_size = 16 * kMiB;
  VirtioBalloon balloon(thread, "b0", services, {.free_page_hint = true}, {});
  std::unique_ptr<TestDriver> driver;
  thread.Run([&] {
    driver = std::make_unique<TestDriver>(balloon, thread.loop());
    EXPECT_TRUE(driver->Start());
  });
  GuestAddress id_at;
  thread.Run([&] { id_at = driver->ram().Allocate(4); });
  for (unsigned round = 0; round < 50; ++round) {
    std::atomic<bool> stopped = false;
    std::atomic<unsigned> named = 0;
    ASSERT_TRUE(balloon.StartFreePageHinting([&](RamBlock&, std::uint64_t, std::uint64_t) {
      EXPECT_FALSE(stopped);
      ++named;
    }));
    balloon.SetPollingInterval(round % 2);
    std::atomic<bool> sent = false;
    thread.loop().Post([&] {
      std::uint32_t id = 0;
      balloon.ReadConfig(8, std::as_writable_bytes(std::span(&id, 1)));
      driver->ram().Store(id_at, id);
      driver->Send(kHints, std::vector<TestBuffer>{{.address = id_at, .length = 4}});
      for (unsigned i = 0; i < 8; ++i) {
        driver->Send(kHints, std::vector<TestBuffer>{{.address = GuestAddress(kFree + i * kMiB / 2),
                                                      .length = kMiB / 2,
                                                      .device_writes = true}});
      }
      while (driver->Take(kHints)) {
      }
      sent = true;
    });
    if (round % 3 == 0) thread.Run([] {});  // some rounds end by themselves, some in the middle
    balloon.StopFreePageHinting();
    stopped = true;
    thread.Run([&] { EXPECT_TRUE(sent); });
    if (round % 3 == 0) {
      EXPECT_EQ(named, 8U);
    }
  }
  thread.Run([&] { driver.reset(); });
}

}  // namespace
}  // namespace holdfast::devices::virtio
