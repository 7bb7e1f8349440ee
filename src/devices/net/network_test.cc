// SPDX-License-Identifier: Apache-2.0
#include "devices/net/network.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "devices/net/test_support.h"

namespace holdfast::devices::net {
namespace {

class FakeNic final : public Nic {
 public:
  FakeNic(std::string name, MacAddress mac, NetBackend* backend)
      : name_(std::move(name)), mac_(mac), backend_(backend) {}
  const std::string& nic_name() const noexcept override { return name_; }
  std::string_view model() const noexcept override { return "virtio-net-pci"; }
  MacAddress mac() const override { return mac_; }
  void SetMac(const MacAddress& mac) override { mac_ = mac; }
  NetBackend* backend() const noexcept override { return backend_; }
  bool link() const noexcept override { return backend_ != nullptr; }
  void SetLink(bool) override {}
  void DropBackend() override { backend_ = nullptr; }
  RxFilter rx_filter() override { return {}; }
  bool Announce() override {
    ++asked;
    return false;
  }

  int asked = 0;  // to announce itself

 private:
  const std::string name_;
  MacAddress mac_;
  NetBackend* backend_;
};

// Keeps what is sent.
class FakeBackend final : public NetBackend {
 public:
  explicit FakeBackend(std::string id) : id_(std::move(id)) {}
  const std::string& id() const noexcept override { return id_; }
  std::string Describe() const override { return "fake"; }
  Status Attach(unsigned, EventLoop&, Receiver) override { return {}; }
  void Detach(unsigned) override {}
  void ReceiverReady(unsigned) override {}
  bool Send(unsigned, std::span<const iovec> header_and_frame) override {
    testing::Bytes frame;
    AppendBytes(header_and_frame, kHeaderSize, frame);
    sent.push_back(std::move(frame));
    return true;
  }
  void SetWritable(unsigned, std::function<void()>) override {}

  std::vector<testing::Bytes> sent;

 private:
  const std::string id_;
};

class NetworkTest : public ::testing::Test {
 protected:
  Status Add(std::string_view text) {
    HF_TRY(const object::KeyValues values, object::ParseKeyValues(text, "type"));
    HF_TRY(const NetdevConfig config, ParseNetdev(values));
    return network_.Add(config);
  }
  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  Network network_{*loop_, {}};
};

TEST_F(NetworkTest, IdsAreUsedOnce) {
  ASSERT_TRUE(Add("user,id=net0"));
  const Status again = Add("user,id=net0");
  ASSERT_FALSE(again);
  EXPECT_NE(again.error().message().find("'net0'"), std::string::npos);
  EXPECT_EQ(network_.Find("net1"), nullptr);
  ASSERT_TRUE(network_.Remove("net0"));
  EXPECT_FALSE(network_.Remove("net0"));
  EXPECT_TRUE(Add("user,id=net0"));
}

TEST_F(NetworkTest, ABackEndHasOneCardAndIsTakenFromIt) {
  ASSERT_TRUE(Add("user,id=net0"));
  FakeNic first("nic0", network_.NextMac(), network_.Find("net0"));
  FakeNic second("nic1", {}, network_.Find("net0"));
  ASSERT_TRUE(network_.AddNic(first));
  const Status added = network_.AddNic(second);
  ASSERT_FALSE(added);
  EXPECT_NE(added.error().message().find("in use"), std::string::npos);
  EXPECT_EQ(network_.FindNic("nic0"), &first);
  EXPECT_EQ(network_.FindNic("net0"), &first);
  EXPECT_EQ(network_.FindNic("nic1"), nullptr);
  EXPECT_EQ(network_.Describe(),
            "nic0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56\n"
            " \\ net0: index=0,type=user,net=10.0.2.0,restrict=off\n");
  ASSERT_TRUE(network_.Remove("net0"));
  EXPECT_EQ(first.backend(), nullptr);
  network_.RemoveNic(first);
  EXPECT_EQ(network_.Describe(), "");
}

TEST_F(NetworkTest, CardsGetAddressesAndNamesOfTheirOwn) {
  FakeNic first("a", network_.NextMac(), nullptr);
  ASSERT_TRUE(network_.AddNic(first));
  FakeNic second("b", network_.NextMac(), nullptr);
  ASSERT_TRUE(network_.AddNic(second));
  EXPECT_EQ(MacText(first.mac()), "52:54:00:12:34:56");
  EXPECT_EQ(MacText(second.mac()), "52:54:00:12:34:57");
  network_.RemoveNic(first);
  EXPECT_EQ(MacText(network_.NextMac()), "52:54:00:12:34:56");
  EXPECT_EQ(network_.NextName("virtio-net-pci"), "virtio-net-pci.0");
  EXPECT_EQ(network_.NextName("virtio-net-pci"), "virtio-net-pci.1");
  network_.RemoveNic(second);
}

TEST_F(NetworkTest, UserNetworksAreFoundWithAndWithoutId) {
  EXPECT_FALSE(network_.FindUser(""));
  ASSERT_TRUE(Add("socket,id=s,listen=127.0.0.1:0"));
  EXPECT_FALSE(network_.FindUser("s"));
  ASSERT_TRUE(Add("user,id=u"));
  EXPECT_TRUE(network_.FindUser(""));
  EXPECT_TRUE(network_.FindUser("u"));
  EXPECT_FALSE(network_.FindUser("x"));
}

class AnnounceTest : public NetworkTest {
 protected:
  AnnounceTest() {
    auto backend = std::make_unique<FakeBackend>("net0");
    backend_ = backend.get();
    EXPECT_TRUE(network_.Add("fake", std::move(backend)));
    card_.emplace("nic0", MacAddress{0x52, 0x54, 0, 1, 2, 3}, backend_);
    EXPECT_TRUE(network_.AddNic(*card_));
  }
  ~AnnounceTest() override { network_.RemoveNic(*card_); }
  bool RunUntilSent(std::size_t frames) {
    return testing::RunUntil(*loop_, [&] { return backend_->sent.size() >= frames; });
  }

  static constexpr std::chrono::milliseconds kNow{0}, kNever{100'000};
  FakeBackend* backend_ = nullptr;
  std::optional<FakeNic> card_;
};

TEST_F(AnnounceTest, EachRoundIsAFrameInTheCardsNameAndAWordToItsDriver) {
  ASSERT_TRUE(network_.Announce({.initial = kNow, .longest = kNow, .rounds = 3}));
  EXPECT_EQ(backend_->sent.size(), 1U) << "the first at once";
  ASSERT_TRUE(RunUntilSent(3));
  testing::RunReady(*loop_);
  EXPECT_EQ(backend_->sent.size(), 3U);
  EXPECT_EQ(card_->asked, 3);
  // RFC 903: to everybody, type 0x8035, an Ethernet's addresses of IPv4, request reverse.
  testing::Bytes rarp = testing::ToBytes(
      {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 1, 2, 3, 0x80, 0x35, 0,    1, 8, 0, 6,
       4,    0,    3,    0x52, 0x54, 0,    1,    2,    3, 0, 0, 0, 0,    0x52, 0x54, 0, 1, 2, 3});
  rarp.resize(60);
  for (const testing::Bytes& frame : backend_->sent) EXPECT_EQ(frame, rarp);
}

TEST_F(AnnounceTest, OnlyTheCardsThatAreNamed) {
  ASSERT_TRUE(network_.Announce({.rounds = 1, .cards = {"another"}}));
  EXPECT_EQ(backend_->sent.size(), 0U);
  ASSERT_TRUE(network_.Announce({.rounds = 1, .cards = {"another", "nic0"}}));
  EXPECT_EQ(backend_->sent.size(), 1U);
}

TEST_F(AnnounceTest, AnotherOfTheSameNameReplacesItAndOneWithoutRoundsEndsIt) {
  ASSERT_TRUE(network_.Announce({.initial = kNow, .longest = kNow, .rounds = 1000, .id = "a"}));
  ASSERT_TRUE(network_.Announce({.initial = kNever, .longest = kNever, .rounds = 2, .id = "b"}));
  ASSERT_TRUE(RunUntilSent(10)) << "b has not ended a";
  ASSERT_TRUE(network_.Announce({.initial = kNever, .longest = kNever, .rounds = 2, .id = "a"}));
  const std::size_t sent = backend_->sent.size();
  testing::RunReady(*loop_);
  EXPECT_EQ(backend_->sent.size(), sent);
  ASSERT_TRUE(network_.Announce({.initial = kNow, .longest = kNow, .rounds = 1000, .id = "a"}));
  ASSERT_TRUE(network_.Announce({.rounds = 0, .id = "a"}));
  testing::RunReady(*loop_);
  EXPECT_EQ(backend_->sent.size(), sent + 1);
}

TEST_F(AnnounceTest, TimesOutOfRangeAreRefused) {
  using std::chrono::milliseconds;
  const AnnounceTimes cases[] = {
      {.initial = milliseconds(-1)},
      {.initial = milliseconds(100'001)},
      {.longest = milliseconds(-1)},
      {.longest = milliseconds(100'001)},
      {.rounds = -1},
      {.rounds = 1001},
      {.step = milliseconds(0)},
      {.step = milliseconds(10'001)},
  };
  for (const AnnounceTimes& times : cases) EXPECT_FALSE(network_.Announce(times));
  EXPECT_EQ(backend_->sent.size(), 0U);
}

TEST(MacAddress, IsReadInItsUsualForm) {
  MacAddress mac{};
  ASSERT_TRUE(ReadMac("52:54:00:ab:CD:ef", mac));
  EXPECT_EQ(MacText(mac), "52:54:00:ab:cd:ef");
  for (const char* const bad : {"", "52:54:00:ab:cd", "52:54:00:ab:cd:e", "52:54:00:ab:cd:eg",
                                "52.54.00.ab.cd.ef", "52:54:00:ab:cd:ef:"}) {
    EXPECT_FALSE(ReadMac(bad, mac)) << bad;
  }
}

}  // namespace
}  // namespace holdfast::devices::net
