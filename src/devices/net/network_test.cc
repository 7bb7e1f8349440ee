// SPDX-License-Identifier: Apache-2.0
#include "devices/net/network.h"

#include <gtest/gtest.h>

#include <memory>

#include "base/event_loop.h"

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
  bool Announce() override { return false; }

 private:
  const std::string name_;
  MacAddress mac_;
  NetBackend* backend_;
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
