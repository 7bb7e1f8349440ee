// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/test_driver.h"
#include "devices/virtio/virtio_net.h"
#include "devices/virtio/virtio_net_regs.h"

/// A network card between a test's driver and a back end that the test looks into.
namespace holdfast::devices::virtio::testing {

using net::kHeaderSize;
using Bytes = std::vector<std::byte>;

inline constexpr std::uint64_t kAllFeatures =
    net::kNetHostOffloads | net::kNetGuestOffloads | net::kNetMac | net::kNetMergeableBuffers |
    net::kNetStatus | net::kNetControlQueue | net::kNetControlRx | net::kNetControlVlan |
    net::kNetControlRxExtra | net::kNetControlMac | net::kNetControlGuestOffloads |
    net::kNetGuestAnnounce | net::kNetMultiQueue;
inline constexpr std::uint64_t kAccepted = ~0ULL & ~kFeatureRingPacked;
inline constexpr net::MacAddress kMac = {0x52, 0x54, 0, 0x12, 0x34, 0x56};

// A back end that keeps what the guest sends and has what the test gives it.
class FakeBackend final : public net::NetBackend {
 public:
  FakeBackend(unsigned pairs, std::uint64_t offloads)
      : offloads_(offloads), receivers_(pairs), writable_(pairs) {}
  const std::string& id() const noexcept override { return id_; }
  std::string Describe() const override { return "fake"; }
  unsigned queue_pairs() const noexcept override {
    return static_cast<unsigned>(receivers_.size());
  }
  std::uint64_t offloads() const noexcept override { return offloads_; }
  Status SetOffloads(std::uint64_t features) override {
    set_offloads = features;
    return {};
  }
  Status Attach(unsigned pair, EventLoop&, Receiver receiver) override {
    receivers_[pair] = std::move(receiver);
    return {};
  }
  void Detach(unsigned pair) override { receivers_[pair] = nullptr; }
  void ReceiverReady(unsigned pair) override {
    while (!held.empty() && receivers_[pair] && Offer(pair, held.front())) held.pop_front();
  }
  bool Send(unsigned pair, std::span<const iovec> packet) override {
    if (!room) return false;
    Bytes all;
    net::AppendBytes(packet, 0, all);
    sent.emplace_back(pair, std::move(all));
    return true;
  }
  void SetWritable(unsigned pair, std::function<void()> writable) override {
    writable_[pair] = std::move(writable);
  }

  bool attached(unsigned pair) const { return receivers_[pair] != nullptr; }
  // A frame comes for the guest.
  void Arrive(unsigned pair, const Bytes& frame) {
    if (!held.empty() || !receivers_[pair] || !Offer(pair, frame)) held.push_back(frame);
  }
  void MakeRoom(unsigned pair) {
    room = true;
    writable_[pair]();
  }

  bool room = true;
  std::vector<std::pair<unsigned, Bytes>> sent;  // with headers
  std::deque<Bytes> held;                        // without
  Bytes header = Bytes(kHeaderSize);
  std::uint64_t set_offloads = 0;

 private:
  bool Offer(unsigned pair, const Bytes& frame) {
    Bytes all = header;
    all.insert(all.end(), frame.begin(), frame.end());
    const std::size_t cut = std::min<std::size_t>(all.size(), 20);
    const iovec pieces[] = {{all.data(), cut}, {all.data() + cut, all.size() - cut}};
    return receivers_[pair](pieces);
  }
  const std::string id_ = "net0";
  const std::uint64_t offloads_;
  std::vector<Receiver> receivers_;
  std::vector<std::function<void()>> writable_;
};

inline Bytes Frame(std::size_t size, std::initializer_list<int> start = {}) {
  Bytes frame(size);
  for (std::size_t i = 0; i < size; ++i) frame[i] = static_cast<std::byte>(i * 7);
  std::transform(start.begin(), start.end(), frame.begin(),
                 [](int value) { return static_cast<std::byte>(value); });
  return frame;
}
inline Bytes WithHeader(const Bytes& frame) {
  Bytes all(kHeaderSize);
  all.insert(all.end(), frame.begin(), frame.end());
  return all;
}

class VirtioNetTest : public ::testing::Test {
 protected:
  void Make(unsigned pairs = 1, std::uint64_t offloads = 0, std::uint64_t accepted = kAccepted,
            std::uint64_t offered = kAllFeatures) {
    auto backend = std::make_unique<FakeBackend>(pairs, offloads);
    backend_ = backend.get();
    ASSERT_TRUE(network_.Add("fake", std::move(backend)));
    VirtioNet::Config config{.name = "nic0", .mac = kMac, .features = offered};
    config.mtu = 1400;
    config.throttle = throttle_;
    auto card = VirtioNet::Create(*loop_, network_, backend_, config);
    ASSERT_TRUE(card) << card.error().ToString();
    card_ = *std::move(card);
    driver_ = std::make_unique<TestDriver>(*card_, *loop_, accepted);
    ASSERT_TRUE(driver_->Start());
  }

  struct Buffer {
    std::uint16_t id;
    GuestAddress address;
    std::uint32_t size;
  };
  Buffer GiveBuffer(std::uint32_t size, unsigned pair = 0) {
    const GuestAddress address = driver_->ram().Allocate(size);
    const TestBuffer buffer{address, size, true};
    return {driver_->Send(2 * pair, {&buffer, 1}), address, size};
  }
  // A request that sends `packet`, header included, as often as it is given to the driver.
  TestBuffer Packet(const Bytes& packet) {
    return {driver_->ram().Put(packet), static_cast<std::uint32_t>(packet.size()), false};
  }
  // What the driver finds in the buffer, which must be the next to be given back.
  Bytes TakeFrame(const Buffer& buffer, unsigned pair = 0) {
    const auto used = driver_->Take(2 * pair);
    EXPECT_TRUE(used);
    if (!used) return {};
    EXPECT_EQ(used->id, buffer.id);
    EXPECT_LE(used->written, buffer.size);
    return driver_->ram().Get(buffer.address, used->written);
  }
  // Sends a control request. @return the answer's byte, nothing if there was none.
  std::optional<int> Control(Bytes request) {
    const auto answer = driver_->Ask(control_, request, 1);
    if (!answer) return std::nullopt;
    EXPECT_EQ(answer->written, 1U);
    return std::to_integer<int>(answer->data[0]);
  }
  std::optional<int> Control(std::initializer_list<int> bytes) {
    return Control(Frame(bytes.size(), bytes));
  }
  // Whether a frame that starts with `start` comes to the driver.
  bool Passes(std::initializer_list<int> start) {
    const Bytes frame = Frame(60, start);
    GiveBuffer(2000);
    backend_->Arrive(0, frame);
    EXPECT_TRUE(backend_->held.empty());
    if (const auto used = driver_->Take(0)) return used->written != 0;
    // It goes on waiting for a frame that passes.
    return false;
  }

  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  std::vector<std::string> events_;
  net::Network network_{*loop_, [this](std::string_view name, const nlohmann::json& data) {
                          events_.push_back(std::string(name) + data.dump());
                        }};
  std::shared_ptr<object::Throttle> throttle_;  // the next card's
  FakeBackend* backend_ = nullptr;
  std::unique_ptr<VirtioNet> card_;
  std::unique_ptr<TestDriver> driver_;
  unsigned control_ = 2;
};

}  // namespace holdfast::devices::virtio::testing
