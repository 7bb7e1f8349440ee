// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/virtio_net_test_support.h"

namespace holdfast::devices::virtio {
namespace {

using namespace testing;
using ::testing::HasSubstr;
using VirtioNetControlTest = VirtioNetTest;

TEST_F(VirtioNetControlTest, FiltersAsTheDriverSays) {
  Make();
  EXPECT_TRUE(Passes({2, 2, 2, 2, 2, 2})) << "everything until told otherwise";
  ASSERT_EQ(Control({kControlRx, kRxPromiscuous, 0}), kControlOk);
  EXPECT_TRUE(Passes({0x52, 0x54, 0, 0x12, 0x34, 0x56}));
  EXPECT_TRUE(Passes({0xff, 0xff, 0xff, 0xff, 0xff, 0xff}));
  EXPECT_FALSE(Passes({2, 2, 2, 2, 2, 2}));
  EXPECT_FALSE(Passes({1, 0, 0x5e, 0, 0, 1}));
  Bytes table = Frame(2 + 4 + 6 + 4 + 6, {kControlMac, kMacTableSet,
                                          1,           0,
                                          0,           0,  //
                                          2,           2,
                                          2,           2,
                                          2,           2,
                                          1,           0,
                                          0,           0,  //
                                          1,           0,
                                          0x5e,        0,
                                          0,           1});
  ASSERT_EQ(Control(table), kControlOk);
  EXPECT_TRUE(Passes({2, 2, 2, 2, 2, 2}));
  EXPECT_TRUE(Passes({1, 0, 0x5e, 0, 0, 1}));
  EXPECT_FALSE(Passes({2, 2, 2, 2, 2, 3}));
  EXPECT_FALSE(Passes({1, 0, 0x5e, 0, 0, 2}));
  ASSERT_EQ(Control({kControlRx, kRxNoBroadcast, 1}), kControlOk);
  EXPECT_FALSE(Passes({0xff, 0xff, 0xff, 0xff, 0xff, 0xff}));
  ASSERT_EQ(Control({kControlMac, kMacAddressSet, 4, 4, 4, 4, 4, 4}), kControlOk);
  EXPECT_TRUE(Passes({4, 4, 4, 4, 4, 4}));
  EXPECT_FALSE(Passes({4, 4, 4, 4, 4, 4, 0, 0, 0, 0, 0, 0, 0x81, 0, 0x20, 0x05}));
  ASSERT_EQ(Control({kControlVlan, kVlanAdd, 5, 0}), kControlOk);
  EXPECT_TRUE(Passes({4, 4, 4, 4, 4, 4, 0, 0, 0, 0, 0, 0, 0x81, 0, 0x20, 0x05}));

  const net::RxFilter filter = card_->rx_filter();
  EXPECT_EQ(filter.unicast.size(), 1U);
  EXPECT_EQ(filter.vlans, std::vector<std::uint16_t>{5});
  EXPECT_EQ(net::MacText(filter.main_mac), "04:04:04:04:04:04");
  driver_->Stop();
  ASSERT_TRUE(driver_->Start());
  EXPECT_TRUE(Passes({2, 2, 2, 2, 2, 3})) << "a reset forgets all of it";
}

TEST_F(VirtioNetControlTest, ManyAddressesOverflowIntoAll) {
  Make();
  ASSERT_EQ(Control({kControlRx, kRxPromiscuous, 0}), kControlOk);
  constexpr std::size_t kCount = 65;
  Bytes table = Frame(2 + 4 + 6 * kCount + 4, {kControlMac, kMacTableSet, kCount, 0, 0, 0});
  std::fill(table.end() - 4, table.end(), std::byte{0});
  ASSERT_EQ(Control(table), kControlOk);
  EXPECT_TRUE(card_->rx_filter().unicast_overflow);
  EXPECT_TRUE(Passes({2, 2, 2, 2, 2, 2}));
}

TEST_F(VirtioNetControlTest, WrongControlRequestsAreRefused) {
  Make(4, net::kNetGuestCsum, kAccepted);
  control_ = 8;
  const struct {
    const char* why;
    std::initializer_list<int> request;
  } kCases[] = {
      {"unknown class", {9, 0, 0}},
      {"unknown receive mode", {kControlRx, 6, 1}},
      {"receive mode without value", {kControlRx, kRxPromiscuous}},
      {"table without counts", {kControlMac, kMacTableSet}},
      {"table that promises more than there is", {kControlMac, kMacTableSet, 255, 255, 255, 255}},
      {"table that ends early", {kControlMac, kMacTableSet, 1, 0, 0, 0, 1, 2, 3, 4, 5, 6}},
      {"table with something behind it", {kControlMac, kMacTableSet, 0, 0, 0, 0, 0, 0, 0, 0, 7}},
      {"short address", {kControlMac, kMacAddressSet, 1, 2, 3}},
      {"long address", {kControlMac, kMacAddressSet, 1, 2, 3, 4, 5, 6, 7}},
      {"VLAN out of range", {kControlVlan, kVlanAdd, 0, 0x10}},
      {"VLAN half", {kControlVlan, kVlanAdd, 0}},
      {"unknown VLAN command", {kControlVlan, 2, 0, 0}},
      {"announcement nobody asked for", {kControlAnnounce, kAnnounceAcknowledge}},
      {"no queues", {kControlQueues, kQueuePairsSet, 0, 0}},
      {"too many queues", {kControlQueues, kQueuePairsSet, 5, 0}},
      {"offloads that were not agreed on",
       {kControlOffloads, kOffloadsSet, 0x80, 0, 0, 0, 0, 0, 0, 0}},
      {"half of the offloads", {kControlOffloads, kOffloadsSet, 0, 0, 0, 0}},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    EXPECT_EQ(Control(c.request), kControlError);
  }
  EXPECT_EQ(driver_->needs_reset(), "");
  EXPECT_EQ(Control({kControlOffloads, kOffloadsSet, 0, 0, 0, 0, 0, 0, 0, 0}), kControlOk);
  EXPECT_EQ(backend_->set_offloads, 0U);
}

TEST_F(VirtioNetControlTest, UsesAsManyQueuesAsTheDriverAsksFor) {
  Make(4);
  control_ = 8;
  EXPECT_TRUE(backend_->attached(0));
  EXPECT_FALSE(backend_->attached(1));
  const Buffer third = GiveBuffer(2000, 2);
  ASSERT_EQ(Control({kControlQueues, kQueuePairsSet, 3, 0}), kControlOk);
  EXPECT_TRUE(backend_->attached(2));
  EXPECT_FALSE(backend_->attached(3));
  backend_->Arrive(2, Frame(60));
  EXPECT_EQ(TakeFrame(third, 2).size(), kHeaderSize + 60);
  ASSERT_TRUE(driver_->Ask(5, WithHeader(Frame(60))));
  EXPECT_EQ(backend_->sent.at(0).first, 2U);
  ASSERT_EQ(Control({kControlQueues, kQueuePairsSet, 1, 0}), kControlOk);
  EXPECT_FALSE(backend_->attached(2));
}

TEST_F(VirtioNetControlTest, WithoutSeveralPairsTheControlQueueIsTheThird) {
  Make(4, 0, kAccepted & ~net::kNetMultiQueue);
  EXPECT_EQ(Control({kControlRx, kRxPromiscuous, 1}), kControlOk);
  EXPECT_EQ(Control({kControlQueues, kQueuePairsSet, 2, 0}), kControlError);
}

TEST_F(VirtioNetControlTest, AnnouncesItselfWithTheDriversHelp) {
  Make();
  ASSERT_TRUE(card_->Announce());
  EXPECT_EQ(driver_->config_changes(), 1U);
  Bytes status(2);
  card_->ReadConfig(6, status);
  EXPECT_EQ(status[0], std::byte{3});
  ASSERT_EQ(Control({kControlAnnounce, kAnnounceAcknowledge}), kControlOk);
  card_->ReadConfig(6, status);
  EXPECT_EQ(status[0], std::byte{1});
  driver_->Stop();
  EXPECT_FALSE(card_->Announce());
}

TEST_F(VirtioNetControlTest, ANewAddressIsToldAndTheDriversOwnStillWorks) {
  Make();
  ASSERT_EQ(Control({kControlRx, kRxPromiscuous, 0}), kControlOk);
  const net::MacAddress mac = {0x52, 0x54, 1, 2, 3, 4};
  card_->SetMac(mac);
  EXPECT_EQ(driver_->config_changes(), 1U);
  Bytes told(8);
  card_->ReadConfig(0, told);
  EXPECT_TRUE(std::ranges::equal(std::span(told).first(6), std::as_bytes(std::span(mac))));
  EXPECT_EQ(told[6], std::byte{3}) << "the driver is asked to announce itself";
  const Buffer buffer = GiveBuffer(2000);
  backend_->Arrive(0, Frame(60, {0x52, 0x54, 0, 0x12, 0x34, 0x56}));
  EXPECT_EQ(TakeFrame(buffer).size(), kHeaderSize + 60);
  // A driver that starts anew has the new one, also in its filter.
  driver_->Stop();
  card_->ReadConfig(0, told);
  EXPECT_TRUE(std::ranges::equal(std::span(told).first(6), std::as_bytes(std::span(mac))));
  EXPECT_EQ(card_->mac(), mac);
  EXPECT_EQ(card_->rx_filter().main_mac, mac);
}

TEST_F(VirtioNetControlTest, TellsOnceThatTheFilterChanged) {
  Make();
  for (int i = 0; i < 3; ++i) ASSERT_EQ(Control({kControlRx, kRxAllMulticast, 1}), kControlOk);
  ASSERT_EQ(events_.size(), 1U);
  EXPECT_THAT(events_[0], HasSubstr("NIC_RX_FILTER_CHANGED"));
  EXPECT_THAT(events_[0], HasSubstr("nic0"));
  card_->rx_filter();
  ASSERT_EQ(Control({kControlRx, kRxAllMulticast, 0}), kControlOk);
  EXPECT_EQ(events_.size(), 2U);
}

}  // namespace
}  // namespace holdfast::devices::virtio
