// SPDX-License-Identifier: Apache-2.0
// Devices without disks that are saved in the midst of their work.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "devices/test_support.h"
#include "devices/virtio/serial_port.h"
#include "devices/virtio/state_test_support.h"
#include "devices/virtio/test_driver.h"
#include "devices/virtio/virtio_balloon.h"
#include "devices/virtio/virtio_net_test_support.h"
#include "devices/virtio/virtio_rng.h"
#include "devices/virtio/virtio_serial.h"

namespace holdfast::devices::virtio {
namespace {

using namespace testing;
using devices::testing::FakeChardev;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Event = VirtioSerial::Event;

constexpr std::uint64_t kSplit = ~std::uint64_t{kFeatureRingPacked};

template <typename Device>
Visit VisitOf(Device& device) {
  return [&device](state::Fields& fields) { device.VisitState(fields); };
}

// ---- virtio-serial ------------------------------------------------------------------------------

struct SerialSide {
  explicit SerialSide(EventLoop& loop) : serial(loop, "s.0", 4, nullptr) {
    auto made = SerialPort::Create(serial, {.name = "p", .number = 1, .console = false}, &chardev,
                                   [this](bool open) { opens.push_back(open); });
    EXPECT_TRUE(made);
    port = *std::move(made);
  }
  FakeChardev chardev;
  std::vector<bool> opens;
  VirtioSerial serial;
  std::unique_ptr<SerialPort> port;
};

struct Message {
  std::uint32_t port;
  Event event;
  std::uint16_t value;
};

TEST(SerialState, WhatIsSentInPartGoesOnFromThere) {
  const std::unique_ptr<EventLoop> loop = *EventLoop::Create();
  SerialSide one(*loop);
  SerialSide two(*loop);
  TestDriver driver(one.serial, *loop, kSplit);
  ASSERT_TRUE(driver.Start(16));
  for (const Message& message :
       {Message{0, Event::kDeviceReady, 1}, Message{1, Event::kPortOpen, 1}}) {
    ASSERT_TRUE(driver.Ask(VirtioSerial::kControlOut, BytesOfValue(message)));
  }
  EXPECT_THAT(one.opens, ElementsAre(true));
  one.chardev.room = 3;
  for (const char* const text : {"abcdef", "ghi"}) {
    const auto bytes = BytesOf(text);
    const TestBuffer buffer{driver.ram().Put(bytes), static_cast<std::uint32_t>(bytes.size())};
    driver.Send(5, {&buffer, 1});
  }
  EXPECT_EQ(one.chardev.output, "abc");
  driver.SetRunning(false);
  const auto port = SaveState(VisitOf(*one.port));
  const Status moved =
      driver.MoveTo(two.serial, [&] { EXPECT_TRUE(LoadState(VisitOf(*two.port), port)); });
  ASSERT_TRUE(moved) << moved.error().ToString();
  EXPECT_EQ(one.chardev.output + two.chardev.output, "abcdefghi");
  EXPECT_THAT(two.opens, ElementsAre(true));
  EXPECT_TRUE(driver.Take(5));
  EXPECT_TRUE(driver.Take(5));
  EXPECT_FALSE(driver.Take(5));
  // The message that the driver had no buffer for is still there.
  EXPECT_TRUE(driver.Ask(VirtioSerial::kControlIn, {}, 64));
  ExpectSturdy(VisitOf(*two.port), port);
  const auto device = driver.SaveDevice();
  ASSERT_TRUE(device);
  ExpectSturdy(VisitOf(two.serial), *device);
  driver.Stop();
}

// A port cannot have sent more than its request has: nothing hangs on it.
TEST(SerialState, MoreSentThanThereIsIsAllOfIt) {
  const std::unique_ptr<EventLoop> loop = *EventLoop::Create();
  SerialSide side(*loop);
  state::Fields fields(1);
  bool open = true;
  std::uint64_t sent = UINT64_MAX;
  fields.Value("open", open);
  fields.Value("sent", sent);
  ASSERT_TRUE(LoadState(VisitOf(*side.port), std::move(fields).Take()));
  TestDriver driver(side.serial, *loop, kSplit);
  ASSERT_TRUE(driver.Start(16));
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(driver.Ask(5, BytesOf("xyz")));
  EXPECT_EQ(side.chardev.output, "xyz");
  driver.Stop();
}

// ---- virtio-balloon -----------------------------------------------------------------------------

TEST(BalloonState, SizeAndStatisticsGoAlong) {
  constexpr unsigned kStats = 2;
  const std::unique_ptr<EventLoop> loop = *EventLoop::Create();
  MachineServices services;
  services.ram_size = 16ULL << 20;
  std::vector<std::uint64_t> changes;
  const auto changed = [&](std::uint64_t actual) { changes.push_back(actual); };
  VirtioBalloon one(DeviceThread(*loop), "b0", services, {}, changed);
  VirtioBalloon two(DeviceThread(*loop), "b0", services, {}, changed);
  TestDriver driver(one, *loop, kSplit);
  ASSERT_TRUE(driver.Start(16));
  one.SetTarget(12ULL << 20);
  const std::uint32_t pages = 512;
  one.WriteConfig(4, std::as_bytes(std::span(&pages, 1)));
  std::vector<std::byte> stat(10);
  stat[0] = std::byte{4};
  stat[2] = std::byte{77};
  const TestBuffer buffer{driver.ram().Put(stat), 10, false};
  driver.Send(kStats, {&buffer, 1});
  EXPECT_EQ(one.stats().values[4], 77U);
  const Status moved = driver.MoveTo(two);
  ASSERT_TRUE(moved) << moved.error().ToString();
  EXPECT_EQ(two.actual(), 14ULL << 20);
  EXPECT_EQ(two.stats().values[4], 77U);
  std::uint32_t target = 0;
  two.ReadConfig(0, std::as_writable_bytes(std::span(&target, 1)));
  EXPECT_EQ(target, 1024U);
  EXPECT_FALSE(driver.Take(kStats)) << "the device keeps the buffer until it asks";
  two.SetPollingInterval(1000);
  EXPECT_TRUE(driver.Take(kStats));
  EXPECT_FALSE(driver.Take(kStats));
  const auto saved = driver.SaveDevice();
  ASSERT_TRUE(saved);
  ExpectSturdy(VisitOf(two), *saved);
  driver.Stop();
}

// ---- virtio-rng ---------------------------------------------------------------------------------

TEST(RngState, ARequestThatWaitsIsAnsweredElsewhere) {
  const std::unique_ptr<EventLoop> loop = *EventLoop::Create();
  int ends[2][2];
  for (auto& pipe : ends) ASSERT_EQ(::pipe2(pipe, O_CLOEXEC | O_NONBLOCK), 0);
  const UniqueFd feeds[] = {UniqueFd(ends[0][1]), UniqueFd(ends[1][1])};
  VirtioRng one(*loop, UniqueFd(ends[0][0]), {});
  VirtioRng two(*loop, UniqueFd(ends[1][0]), {});
  TestDriver driver(one, *loop, kSplit);
  ASSERT_TRUE(driver.Start());
  const GuestAddress at = driver.ram().Allocate(4);
  const TestBuffer buffer{at, 4, true};
  driver.Send(0, {&buffer, 1});
  const Status moved = driver.MoveTo(two);
  ASSERT_TRUE(moved) << moved.error().ToString();
  ASSERT_EQ(::write(feeds[1].get(), "wxyz", 4), 4);
  ASSERT_TRUE(driver.RunUntil([&] { return driver.Take(0).has_value(); }));
  EXPECT_EQ(driver.ram().Get(at, 4), BytesOf("wxyz"));
  driver.Stop();
}

// ---- virtio-net ---------------------------------------------------------------------------------

class NetState : public VirtioNetTest {
 protected:
  // Goes on with a card that was made as the first one.
  void Move(std::uint64_t offloads = 0, unsigned pairs = 1) {
    auto backend = std::make_unique<FakeBackend>(pairs, offloads);
    second_ = backend.get();
    ASSERT_TRUE(other_network_.Add("fake", std::move(backend)));
    VirtioNet::Config config{.name = "nic0", .mac = kMac, .features = kAllFeatures};
    config.mtu = 1400;
    auto card = VirtioNet::Create(*loop_, other_network_, second_, config);
    ASSERT_TRUE(card) << card.error().ToString();
    moved_ = *std::move(card);
    const Status moved = driver_->MoveTo(*moved_);
    ASSERT_TRUE(moved) << moved.error().ToString();
  }
  void TearDown() override { driver_.reset(); }

  net::Network other_network_{*loop_, [](std::string_view, const nlohmann::json&) {}};
  FakeBackend* second_ = nullptr;
  std::unique_ptr<VirtioNet> moved_;
};

TEST_F(NetState, BuffersTakenForAFrameThatDidNotFitAreUsedElsewhere) {
  Make();
  const Buffer first = GiveBuffer(100);
  backend_->Arrive(0, Frame(300));
  EXPECT_EQ(backend_->held.size(), 1U) << "it waits for a second buffer";
  ASSERT_NO_FATAL_FAILURE(Move());
  const Buffer second = GiveBuffer(2000);
  second_->Arrive(0, Frame(300, {1, 2, 3}));
  Bytes got = TakeFrame(first);
  const Bytes rest = TakeFrame(second);
  got.insert(got.end(), rest.begin(), rest.end());
  got.erase(got.begin(), got.begin() + kHeaderSize);
  EXPECT_EQ(got, Frame(300, {1, 2, 3}));
  EXPECT_FALSE(driver_->Take(0));
}

TEST_F(NetState, AFrameThatWaitsIsSentElsewhereOnce) {
  Make();
  backend_->room = false;
  const TestBuffer buffer = Packet(WithHeader(Frame(100)));
  for (int i = 0; i < 3; ++i) driver_->Send(1, {&buffer, 1});
  ASSERT_NO_FATAL_FAILURE(Move());
  EXPECT_EQ(second_->sent.size(), 3U);
  EXPECT_TRUE(backend_->sent.empty());
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(driver_->Take(1));
  EXPECT_FALSE(driver_->Take(1));
}

TEST_F(NetState, NoFrameComesWhileTheMachineStands) {
  Make();
  const Buffer buffer = GiveBuffer(2000);
  driver_->SetRunning(false);
  const std::vector<std::byte> before(driver_->ram().bytes().begin(), driver_->ram().bytes().end());
  backend_->Arrive(0, Frame(60));
  EXPECT_TRUE(std::ranges::equal(before, driver_->ram().bytes()));
  driver_->SetRunning(true);
  EXPECT_EQ(TakeFrame(buffer).size(), kHeaderSize + 60);
}

TEST_F(NetState, TheFilterGoesAlongAndTheGuestIsAskedToAnnounceItself) {
  Make(2, net::kNetGuestOffloads);
  control_ = 4;
  EXPECT_EQ(Control({0, 0, 0}), 0);                       // not promiscuous
  EXPECT_EQ(Control({1, 1, 2, 0, 0, 0, 0, 9}), 0);        // another address
  EXPECT_EQ(Control({2, 0, 7, 0}), 0);                    // VLAN 7
  EXPECT_EQ(Control({4, 0, 2, 0}), 0);                    // two pairs
  EXPECT_EQ(Control({5, 0, 2, 0, 0, 0, 0, 0, 0, 0}), 0);  // checksums only
  const unsigned changes = driver_->config_changes();
  ASSERT_NO_FATAL_FAILURE(Move(net::kNetGuestOffloads, 2));
  EXPECT_EQ(second_->set_offloads, 2U);
  EXPECT_TRUE(second_->attached(1));
  EXPECT_GT(driver_->config_changes(), changes);
  const net::RxFilter filter = moved_->rx_filter();
  EXPECT_FALSE(filter.promiscuous);
  EXPECT_EQ(filter.main_mac, (net::MacAddress{2, 0, 0, 0, 0, 9}));
  EXPECT_THAT(filter.vlans, ElementsAre(7));
  std::array<std::byte, 8> config{};
  moved_->ReadConfig(0, config);
  EXPECT_EQ(config[5], std::byte{9});
  EXPECT_EQ(config[6], std::byte{3});  // link up, announce
  EXPECT_EQ(Control({3, 0}), 0);
  const auto saved = driver_->SaveDevice();
  ASSERT_TRUE(saved);
  ExpectSturdy(VisitOf(*moved_), *saved);
  EXPECT_TRUE(LoadState(VisitOf(*moved_), *saved));
}

TEST_F(NetState, AResetWhileTheMachineStandsDoesNotStopTheCard) {
  Make();
  driver_->SetRunning(false);
  driver_->Stop();
  card_->SetRunning(true);
  ASSERT_TRUE(driver_->Start());
  ASSERT_TRUE(driver_->Ask(1, WithHeader(Frame(100))));
  EXPECT_EQ(backend_->sent.size(), 1U);
}

}  // namespace
}  // namespace holdfast::devices::virtio
