// SPDX-License-Identifier: Apache-2.0
#include "devices/net/user_backend.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdio>

#include "devices/net/test_support.h"

namespace holdfast::devices::net {
namespace {

using testing::Append;
using testing::Bytes;
using testing::RunReady;
using testing::RunUntil;
using testing::TestGuest;
using testing::ToBytes;

const Bytes kBroadcast = ToBytes({0xff, 0xff, 0xff, 0xff, 0xff, 0xff});
const Bytes kGuestMac = ToBytes({0x52, 0x54, 0x00, 0x12, 0x34, 0x56});

// Who has 10.0.2.`last`? Tell 10.0.2.15.
Bytes ArpRequest(int last) {
  Bytes frame = kBroadcast;
  Append(frame, kGuestMac);
  Append(frame, ToBytes({8, 6, 0, 1, 8, 0, 6, 4, 0, 1}));
  Append(frame, kGuestMac);
  Append(frame, ToBytes({10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, last}));
  frame.resize(60);
  return frame;
}

bool IsArp(const Bytes& frame, int operation) {
  return frame.size() >= 42 && frame[12] == std::byte{8} && frame[13] == std::byte{6} &&
         frame[21] == static_cast<std::byte>(operation);
}

std::uint16_t Checksum(const Bytes& bytes, std::size_t begin, std::size_t size) {
  std::uint32_t sum = 0;
  for (std::size_t i = begin; i < begin + size; i += 2) {
    sum += std::to_integer<std::uint32_t>(bytes[i]) << 8 |
           std::to_integer<std::uint32_t>(bytes[i + 1]);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

Bytes DhcpDiscover() {
  Bytes frame = kBroadcast;
  Append(frame, kGuestMac);
  Append(frame, ToBytes({8, 0}));
  constexpr int kPayload = 244;
  Append(frame, ToBytes({0x45,
                         0,
                         (28 + kPayload) >> 8,
                         (28 + kPayload) & 0xff,
                         0,
                         0,
                         0,
                         0,
                         64,
                         17,
                         0,
                         0,
                         0,
                         0,
                         0,
                         0,
                         255,
                         255,
                         255,
                         255}));
  const std::uint16_t sum = Checksum(frame, 14, 20);
  frame[24] = static_cast<std::byte>(sum >> 8);
  frame[25] = static_cast<std::byte>(sum & 0xff);
  Append(frame, ToBytes({0, 68, 0, 67, (8 + kPayload) >> 8, (8 + kPayload) & 0xff, 0, 0}));
  Append(frame, ToBytes({1, 1, 6, 0, 0xca, 0xfe, 0xba, 0xbe, 0, 0, 0x80, 0}));
  frame.resize(frame.size() + 16);  // addresses
  Append(frame, kGuestMac);
  frame.resize(frame.size() + 10 + 192);
  Append(frame, ToBytes({0x63, 0x82, 0x53, 0x63, 53, 1, 1, 0xff}));
  return frame;
}

class UserBackendTest : public ::testing::Test {
 protected:
  std::unique_ptr<UserBackend> Make(std::string_view options = {}) {
    auto values = object::ParseKeyValues(options);
    EXPECT_TRUE(values);
    auto config = ParseUserConfig(*values);
    EXPECT_TRUE(config) << config.error().ToString();
    auto made = UserBackend::Create(*loop_, "net0", *config);
    if (!made) {
      ADD_FAILURE() << made.error().ToString();
      return nullptr;
    }
    return *std::move(made);
  }
  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
};

TEST_F(UserBackendTest, TheHostAndTheNameServerAnswerArp) {
  const auto backend = Make();
  TestGuest guest(*backend, *loop_);
  for (const int last : {2, 3}) {
    ASSERT_TRUE(guest.Send(ArpRequest(last)));
    ASSERT_TRUE(RunUntil(*loop_, [&] {
      return std::any_of(guest.frames().begin(), guest.frames().end(), [&](const Bytes& frame) {
        return IsArp(frame, 2) && frame[31] == static_cast<std::byte>(last);
      });
    }));
  }
}

TEST_F(UserBackendTest, DhcpOffersTheFirstAddress) {
  const struct {
    const char* options;
    Bytes address;
  } kCases[] = {{"", ToBytes({10, 0, 2, 15})},
                {"net=192.168.76.0/24,dhcpstart=192.168.76.9", ToBytes({192, 168, 76, 9})}};
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.options);
    const auto backend = Make(c.options);
    TestGuest guest(*backend, *loop_);
    ASSERT_TRUE(guest.Send(DhcpDiscover()));
    const auto is_offer = [&](const Bytes& frame) {
      return frame.size() > 282 && frame[23] == std::byte{17} && frame[37] == std::byte{68} &&
             frame[46] == std::byte{0xca} &&
             std::equal(c.address.begin(), c.address.end(), frame.begin() + 58);
    };
    EXPECT_TRUE(RunUntil(*loop_, [&] {
      return std::any_of(guest.frames().begin(), guest.frames().end(), is_offer);
    }));
  }
}

TEST_F(UserBackendTest, AConnectionToAForwardedPortGoesToTheGuest) {
  const auto backend = Make("hostfwd=tcp:127.0.0.1:0-:22");
  TestGuest guest(*backend, *loop_);
  const std::string info = backend->ConnectionInfo();
  const std::size_t line = info.find("TCP[HOST_FORWARD]");
  ASSERT_NE(line, std::string::npos) << info;
  unsigned port = 0;
  ASSERT_EQ(std::sscanf(info.c_str() + line, "TCP[HOST_FORWARD] %*d 127.0.0.1 %u", &port), 1)
      << info;
  RunReady(*loop_);

  UniqueFd client(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
            0);
  // The first that the guest hears of it is the question who has its address.
  EXPECT_TRUE(RunUntil(*loop_, [&] {
    return std::any_of(guest.frames().begin(), guest.frames().end(), [](const Bytes& frame) {
      return IsArp(frame, 1) && frame[41] == std::byte{15};
    });
  }));
}

TEST_F(UserBackendTest, ForwardsComeAndGo) {
  const auto backend = Make();
  auto rule = ParseHostForward("udp:127.0.0.1:0-:53");
  ASSERT_TRUE(rule);
  EXPECT_FALSE(backend->RemoveForward(*rule));
  ASSERT_TRUE(backend->AddForward(*rule));
  EXPECT_NE(backend->ConnectionInfo().find("UDP[HOST_FORWARD]"), std::string::npos);
}

TEST_F(UserBackendTest, APortInUseIsAnErrorThatNamesTheRule) {
  UniqueFd taken(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  ASSERT_EQ(::bind(taken.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(::listen(taken.get(), 1), 0);
  socklen_t size = sizeof address;
  ASSERT_EQ(::getsockname(taken.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  const std::string rule = fmt::format("tcp:127.0.0.1:{}-10.0.2.15:22", ntohs(address.sin_port));
  const auto config = ParseUserConfig({{.key = "hostfwd", .value = rule}});
  ASSERT_TRUE(config);
  const auto made = UserBackend::Create(*loop_, "net0", *config);
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message().find(rule), std::string::npos) << made.error().message();
}

TEST_F(UserBackendTest, FramesWaitForAGuestWithoutRoom) {
  const auto backend = Make();
  TestGuest guest(*backend, *loop_);
  guest.set_taking(false);
  ASSERT_TRUE(guest.Send(ArpRequest(2)));
  RunReady(*loop_);
  EXPECT_TRUE(guest.frames().empty());
  guest.set_taking(true);
  backend->ReceiverReady(0);
  EXPECT_TRUE(std::any_of(guest.frames().begin(), guest.frames().end(),
                          [](const Bytes& frame) { return IsArp(frame, 2); }));
}

TEST_F(UserBackendTest, FramesOfImpossibleSizeAreDropped) {
  const auto backend = Make();
  TestGuest guest(*backend, *loop_);
  for (const std::size_t size : {0, 1, 13, 14, 20, 70 << 10}) {
    EXPECT_TRUE(guest.Send(Bytes(size)));
  }
  EXPECT_TRUE(guest.Send(ArpRequest(2)));
  EXPECT_TRUE(RunUntil(*loop_, [&] { return !guest.frames().empty(); }));
}

TEST_F(UserBackendTest, DescribesItselfAsQemuDoes) {
  EXPECT_EQ(Make()->Describe(), "net=10.0.2.0,restrict=off");
  EXPECT_EQ(Make("net=10.1.0.0/16,restrict=on")->Describe(), "net=10.1.0.0,restrict=on");
}

}  // namespace
}  // namespace holdfast::devices::net
