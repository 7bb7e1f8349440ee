// SPDX-License-Identifier: Apache-2.0
// Network cards whose queues another process serves: -netdev vhost-user from the chardev on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>

#include "devices/net/netdev_config.h"
#include "devices/net/vhost_user_backend.h"
#include "devices/socket_chardev.h"
#include "devices/vhost_user/test_net_backend.h"
#include "devices/virtio/virtio_net_test_support.h"

namespace holdfast::devices::virtio {
namespace {

using namespace std::chrono_literals;
using namespace virtio::testing;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using vhost_user::TestNetBackend;

constexpr std::uint64_t kBackendFeatures = net::kNetCsum | net::kNetGuestCsum |
                                           net::kNetMergeableBuffers | net::kNetMtu |
                                           net::kNetMultiQueue | net::kNetGuestAnnounce;
constexpr std::uint64_t kBackendProtocol =
    vhost_user::kProtocolMq | vhost_user::kProtocolReplyAck | vhost_user::kProtocolRarp |
    vhost_user::kProtocolNetMtu | vhost_user::kProtocolLogShmfd | vhost_user::kProtocolStatus;
constexpr std::uint64_t kQueueNumber = 2;

class VirtioNetVhostUserTest : public ::testing::Test {
 protected:
  VirtioNetVhostUserTest()
      : folder_(std::filesystem::temp_directory_path() /
                ("net_vhost_user_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
    network_.set_chardevs(
        [this](std::string_view id) { return id == "c0" ? chardev_.get() : nullptr; });
  }
  ~VirtioNetVhostUserTest() override {
    driver_.reset();
    card_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  std::string Path() const { return (folder_ / "socket").string(); }
  // A back end that gives every frame back with its first byte changed.
  void MakeProcess(TestNetBackend::Options options = {.features = kBackendFeatures,
                                                      .protocol = kBackendProtocol,
                                                      .pairs = 2,
                                                      .answer = {}}) {
    options.answer = [](TestNetBackend::Frame frame) {
      frame[0] = std::byte{0xee};
      return std::optional(std::move(frame));
    };
    process_ = std::make_unique<TestNetBackend>(Path(), std::move(options));
  }
  Status AddNetdev(unsigned queues, std::optional<std::chrono::milliseconds> reconnect = 10ms) {
    SocketSpec spec;
    spec.address.path = Path();
    spec.reconnect = reconnect;
    HF_TRY(chardev_, SocketChardev::Create(*loop_, spec));
    return network_.Add({.id = "n0",
                         .type = "vhost-user",
                         .what = net::VhostUserConfig{.chardev = "c0", .queues = queues}});
  }
  void MakeCard(std::uint64_t accepted = kAccepted) {
    VirtioNet::Config config{.name = "nic0", .mac = kMac, .features = kAllFeatures | net::kNetMtu};
    config.mtu = 1400;
    auto card = VirtioNet::Create(*loop_, network_, network_.Find("n0"), config);
    ASSERT_TRUE(card) << card.error().ToString();
    card_ = *std::move(card);
    driver_ = std::make_unique<TestDriver>(*card_, *loop_, accepted & card_->features());
    ASSERT_TRUE(driver_->Start());
  }
  void MakeAll(unsigned queues = 1, std::uint64_t accepted = kAccepted,
               std::optional<std::chrono::milliseconds> reconnect = 10ms) {
    MakeProcess();
    const Status added = AddNetdev(queues, reconnect);
    ASSERT_TRUE(added) << added.error().ToString();
    MakeCard(accepted);
  }

  void SendFrame(const Bytes& frame, unsigned pair = 0) {
    const Bytes packet = WithHeader(frame);
    const TestBuffer buffer{driver_->ram().Put(packet), static_cast<std::uint32_t>(packet.size()),
                            false};
    driver_->Send(2 * pair + 1, {&buffer, 1});
  }
  GuestAddress GiveBuffer(unsigned pair = 0) {
    const GuestAddress address = driver_->ram().Allocate(2000);
    const TestBuffer buffer{address, 2000, true};
    driver_->Send(2 * pair, {&buffer, 1});
    return address;
  }
  // Sends a frame and finds the answer to it in the next buffer.
  void ExpectEcho(int mark, unsigned pair = 0) {
    const GuestAddress buffer = GiveBuffer(pair);
    Bytes frame = Frame(100, {1, mark});
    SendFrame(frame, pair);
    std::optional<TestQueue::Used> used;
    ASSERT_TRUE(driver_->RunUntil([&] { return (used = driver_->Take(2 * pair)).has_value(); }));
    frame[0] = std::byte{0xee};
    Bytes got = driver_->ram().Get(buffer, used->written);
    ASSERT_GT(got.size(), kHeaderSize);
    got.erase(got.begin(), got.begin() + kHeaderSize);
    EXPECT_EQ(got, frame);
    ASSERT_TRUE(driver_->RunUntil([&] { return driver_->Take(2 * pair + 1).has_value(); }));
  }
  std::uint16_t CardStatus() const {
    std::uint16_t status = 0;
    card_->ReadConfig(6, std::as_writable_bytes(std::span(&status, 1)));
    return status;
  }
  bool LinkUp() const { return (CardStatus() & 1) != 0; }
  bool RunUntilLink(bool up) {
    return driver_->RunUntil([this, up] { return LinkUp() == up; });
  }

  const std::filesystem::path folder_;
  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  std::vector<std::string> events_;
  std::unique_ptr<Chardev> chardev_;
  net::Network network_{*loop_, [this](std::string_view name, const nlohmann::json& data) {
                          events_.push_back(std::string(name) + data.dump());
                        }};
  std::unique_ptr<TestNetBackend> process_;
  std::unique_ptr<VirtioNet> card_;
  std::unique_ptr<TestDriver> driver_;
};

TEST_F(VirtioNetVhostUserTest, FramesGoBothWaysInTheGuestsMemory) {
  ASSERT_NO_FATAL_FAILURE(MakeAll());
  for (int i = 0; i < 300; ++i) ASSERT_NO_FATAL_FAILURE(ExpectEcho(i & 0xff));
  EXPECT_TRUE(LinkUp());
  EXPECT_THAT(events_, ElementsAre(HasSubstr(R"("chardev-id":"c0","netdev-id":"n0")")));
  EXPECT_EQ(driver_->needs_reset(), "");
  EXPECT_GT(driver_->interrupts(0), 0U);
}

TEST_F(VirtioNetVhostUserTest, OffersWhatTheBackEndKnows) {
  ASSERT_NO_FATAL_FAILURE(MakeAll(2));
  const std::uint64_t features = card_->features();
  EXPECT_EQ(features & kBackendFeatures, kBackendFeatures);
  EXPECT_EQ(features & net::kNetHostTso4, 0U);
  EXPECT_EQ(features & net::kNetControlGuestOffloads, 0U);
  EXPECT_NE(features & net::kNetControlQueue, 0U);  // the card's own
  EXPECT_NE(card_->refused_common_features() & kFeatureRingPacked, 0U);
  const TestNetBackend::Seen seen = process_->seen();
  EXPECT_EQ(seen.features & kBackendFeatures, kBackendFeatures);
  EXPECT_EQ(seen.features & net::kNetControlQueue, 0U);
  EXPECT_EQ(seen.mtu, 1400U);
}

TEST_F(VirtioNetVhostUserTest, ABackEndWithoutProtocolFeaturesWorksToo) {
  MakeProcess({.features = 0, .protocol = 0, .pairs = 1, .answer = {}});
  ASSERT_TRUE(AddNetdev(1));
  ASSERT_NO_FATAL_FAILURE(MakeCard());
  EXPECT_EQ(card_->features() & kBackendFeatures, 0U);
  ASSERT_NO_FATAL_FAILURE(ExpectEcho(1));
  card_->SetRunning(false);
  card_->SetRunning(true);
  ASSERT_NO_FATAL_FAILURE(ExpectEcho(2));
}

TEST_F(VirtioNetVhostUserTest, ServesThePairsThatTheDriverUses) {
  ASSERT_NO_FATAL_FAILURE(MakeAll(2));
  using Seen = TestNetBackend::Seen;
  const auto serves = [&](std::vector<unsigned> queues) {
    return process_->WaitFor([&](const Seen& seen) { return seen.served == queues; });
  };
  const auto use = [&](int pairs) {
    const auto answer = driver_->Ask(2 * kQueueNumber, Frame(4, {4, 0, pairs, 0}), 1);
    return answer && answer->data.at(0) == std::byte{0};
  };
  EXPECT_TRUE(serves({0, 1}));
  EXPECT_EQ(process_->seen().starts, 4U);
  ASSERT_TRUE(use(2));
  EXPECT_TRUE(serves({0, 1, 2, 3}));
  ASSERT_NO_FATAL_FAILURE(ExpectEcho(1, 1));
  EXPECT_EQ(process_->seen().frames.back().first, 1U);
  ASSERT_NO_FATAL_FAILURE(ExpectEcho(2, 0));
  ASSERT_TRUE(use(1));
  EXPECT_TRUE(serves({0, 1}));
  ASSERT_NO_FATAL_FAILURE(ExpectEcho(3, 0));
  // The back end was never told to start anew.
  EXPECT_EQ(process_->seen().starts, 4U);
  EXPECT_EQ(process_->seen().stops, 0U);
  driver_.reset();
  EXPECT_EQ(process_->seen().stops, 4U);
}

TEST_F(VirtioNetVhostUserTest, StandsStillWhileTheMachineDoes) {
  ASSERT_NO_FATAL_FAILURE(MakeAll(2));
  ASSERT_NO_FATAL_FAILURE(ExpectEcho(1));
  for (int round = 0; round < 3; ++round) {
    SCOPED_TRACE(round);
    card_->SetRunning(false);
    EXPECT_THAT(process_->seen().served, IsEmpty());
    const std::size_t before = process_->seen().frames.size();
    // What a vCPU did just before it stood.
    GiveBuffer();
    SendFrame(Frame(80, {2, round}));
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(loop_->RunOnce(10ms));
    EXPECT_EQ(process_->seen().frames.size(), before);
    EXPECT_FALSE(driver_->Take(1));
    card_->SetRunning(true);
    ASSERT_TRUE(driver_->RunUntil([&] { return driver_->Take(0).has_value(); }));
    ASSERT_TRUE(driver_->RunUntil([&] { return driver_->Take(1).has_value(); }));
    EXPECT_EQ(process_->seen().frames.size(), before + 1);
    ASSERT_NO_FATAL_FAILURE(ExpectEcho(round));
  }
  EXPECT_TRUE(LinkUp());
  EXPECT_EQ(driver_->needs_reset(), "");
}

TEST_F(VirtioNetVhostUserTest, TheLinkIsDownWhileTheBackEndIsAway) {
  ASSERT_NO_FATAL_FAILURE(MakeAll());
  ASSERT_NO_FATAL_FAILURE(ExpectEcho(1));
  for (int round = 0; round < 3; ++round) {
    SCOPED_TRACE(round);
    const unsigned changes = driver_->config_changes();
    process_->Kill();
    ASSERT_TRUE(RunUntilLink(false));
    EXPECT_GT(driver_->config_changes(), changes);
    // What is sent now is lost, and its buffer given back.
    SendFrame(Frame(60));
    ASSERT_TRUE(driver_->RunUntil([&] { return driver_->Take(1).has_value(); }));
    process_->Revive();
    ASSERT_TRUE(RunUntilLink(true));
    ASSERT_NO_FATAL_FAILURE(ExpectEcho(2));
  }
  EXPECT_EQ(events_.size(), 7U);
  EXPECT_THAT(events_[1], HasSubstr("NETDEV_VHOST_USER_DISCONNECTED"));
  EXPECT_THAT(events_[2], HasSubstr("NETDEV_VHOST_USER_CONNECTED"));
  EXPECT_EQ(driver_->needs_reset(), "");
}

TEST_F(VirtioNetVhostUserTest, ABackEndMayComeBackWhileTheMachineStandsOrTheCableIsOut) {
  ASSERT_NO_FATAL_FAILURE(MakeAll());
  card_->SetRunning(false);
  process_->Kill();
  ASSERT_TRUE(RunUntilLink(false));
  process_->Revive();
  ASSERT_TRUE(RunUntilLink(true));
  EXPECT_THAT(process_->seen().served, IsEmpty());
  card_->SetRunning(true);
  ASSERT_NO_FATAL_FAILURE(ExpectEcho(1));

  card_->SetLink(false);
  EXPECT_FALSE(LinkUp());
  EXPECT_THAT(process_->seen().served, IsEmpty());
  const unsigned connections = process_->seen().connections;
  process_->Kill();
  ASSERT_TRUE(loop_->RunOnce(20ms));
  process_->Revive();
  ASSERT_TRUE(driver_->RunUntil([&] { return process_->seen().connections > connections; }));
  EXPECT_FALSE(LinkUp());
  card_->SetLink(true);
  ASSERT_TRUE(RunUntilLink(true));
  ASSERT_NO_FATAL_FAILURE(ExpectEcho(2));
}

TEST_F(VirtioNetVhostUserTest, WithoutReconnectTheLinkStaysDown) {
  ASSERT_NO_FATAL_FAILURE(MakeAll(1, kAccepted, std::nullopt));
  process_->Kill();
  ASSERT_TRUE(RunUntilLink(false));
  process_->Revive();
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(loop_->RunOnce(10ms));
  EXPECT_FALSE(LinkUp());
  EXPECT_EQ(process_->seen().connections, 1U);
  EXPECT_THAT(network_.Describe(), HasSubstr("(disconnected)"));
}

TEST_F(VirtioNetVhostUserTest, ABackEndMayConnectToUs) {
  SocketSpec spec;
  spec.address.path = Path();
  spec.server = true;
  auto chardev = SocketChardev::Create(*loop_, spec);
  ASSERT_TRUE(chardev) << chardev.error().ToString();
  chardev_ = *std::move(chardev);
  const net::NetdevConfig netdev{
      .id = "n0", .type = "vhost-user", .what = net::VhostUserConfig{.chardev = "c0"}};
  const Status nobody = network_.Add(netdev);
  ASSERT_FALSE(nobody);
  EXPECT_THAT(nobody.error().message(), HasSubstr("no vhost-user back end has connected"));
  MakeProcess({.features = kBackendFeatures,
               .protocol = kBackendProtocol,
               .pairs = 2,
               .connects = true,
               .answer = {}});
  ASSERT_TRUE(process_->WaitFor([](const auto& seen) { return seen.connections == 1; }));
  const Status added = network_.Add(netdev);
  ASSERT_TRUE(added) << added.error().ToString();
  ASSERT_NO_FATAL_FAILURE(MakeCard());
  ASSERT_NO_FATAL_FAILURE(ExpectEcho(1));
  process_->Kill();
  ASSERT_TRUE(RunUntilLink(false));
  process_->Revive();
  ASSERT_TRUE(RunUntilLink(true));
  ASSERT_NO_FATAL_FAILURE(ExpectEcho(2));
}

TEST_F(VirtioNetVhostUserTest, AnotherDriverStartsWithTheSameBackEnd) {
  ASSERT_NO_FATAL_FAILURE(MakeAll());
  ASSERT_NO_FATAL_FAILURE(ExpectEcho(1));
  driver_.reset();
  driver_ = std::make_unique<TestDriver>(*card_, *loop_, card_->features());
  ASSERT_TRUE(driver_->Start());
  ASSERT_NO_FATAL_FAILURE(ExpectEcho(2));
  EXPECT_EQ(process_->seen().connections, 1U);
}

TEST_F(VirtioNetVhostUserTest, AskedToTheBackEndAnnouncesADriverThatDoesNot) {
  constexpr std::uint64_t kMacNumber = 0x563412005452;
  ASSERT_NO_FATAL_FAILURE(MakeAll(1, kAccepted & ~std::uint64_t{net::kNetGuestAnnounce}));
  ASSERT_TRUE(network_.Announce({.rounds = 1}));
  ASSERT_NO_FATAL_FAILURE(ExpectEcho(1));
  EXPECT_EQ(process_->seen().rarp, kMacNumber);
}

TEST_F(VirtioNetVhostUserTest, ADriverThatAnnouncesItselfIsLeftToIt) {
  ASSERT_NO_FATAL_FAILURE(MakeAll());
  ASSERT_TRUE(network_.Announce({.rounds = 1}));
  ASSERT_NO_FATAL_FAILURE(ExpectEcho(1));
  EXPECT_EQ(process_->seen().rarp, std::nullopt);
  EXPECT_NE(CardStatus() & 2, 0);
}

TEST_F(VirtioNetVhostUserTest, ACardWithoutItsBackEndGivesBuffersBack) {
  ASSERT_NO_FATAL_FAILURE(MakeAll());
  ASSERT_NO_FATAL_FAILURE(ExpectEcho(1));
  ASSERT_TRUE(network_.Remove("n0"));
  EXPECT_FALSE(LinkUp());
  SendFrame(Frame(60));
  ASSERT_TRUE(driver_->RunUntil([&] { return driver_->Take(1).has_value(); }));
  // The chardev is free for another one.
  process_->Kill();
  process_->Revive();
  ASSERT_TRUE(AddNetdev(1));
}

TEST_F(VirtioNetVhostUserTest, RefusesInASentence) {
  const Status nobody = network_.Add(
      {.id = "n0", .type = "vhost-user", .what = net::VhostUserConfig{.chardev = "c9"}});
  ASSERT_FALSE(nobody);
  EXPECT_THAT(nobody.error().message(), HasSubstr("chardev \"c9\" not found"));

  MakeProcess();
  const Status many = AddNetdev(3);
  ASSERT_FALSE(many);
  EXPECT_THAT(many.error().message(), HasSubstr("you are asking more queues than supported: 2"));

  process_->Kill();
  const Status away = AddNetdev(1);
  ASSERT_FALSE(away);
  EXPECT_THAT(away.error().message(), HasSubstr("cannot connect to the vhost-user back end"));
}

}  // namespace
}  // namespace holdfast::devices::virtio
