// SPDX-License-Identifier: Apache-2.0
// The back ends over sockets: stream and datagram, against a peer that is a plain socket.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "devices/net/dgram_backend.h"
#include "devices/net/stream_backend.h"
#include "devices/net/test_support.h"

namespace holdfast::devices::net {
namespace {

using testing::Bytes;
using testing::RunReady;
using testing::RunUntil;
using testing::TestGuest;
using testing::ToBytes;

// A frame's bytes on the wire.
Bytes Framed(const Bytes& frame) {
  const auto size = static_cast<int>(frame.size());
  Bytes wire = ToBytes({size >> 24, size >> 16, size >> 8, size});
  testing::Append(wire, frame);
  return wire;
}

class SocketBackendTest : public ::testing::Test {
 protected:
  SocketBackendTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "netXXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  ~SocketBackendTest() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  // A back end on one end of a pair; the other end is `peer_`.
  std::unique_ptr<StreamBackend> MakePair() {
    std::array<int, 2> fds{};
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()), 0);
    peer_.reset(fds[1]);
    EXPECT_EQ(::fcntl(peer_.get(), F_SETFL, O_NONBLOCK), 0);
    StreamConfig config;
    config.address.fd = fds[0];
    return Make(config);
  }
  std::unique_ptr<StreamBackend> Make(const StreamConfig& config) {
    auto made = StreamBackend::Create(*loop_, "net0", config,
                                      [this](std::string_view name, const nlohmann::json& data) {
                                        EXPECT_EQ(data["netdev-id"], "net0");
                                        events_.emplace_back(name);
                                      });
    if (!made) {
      ADD_FAILURE() << made.error().ToString();
      return nullptr;
    }
    return *std::move(made);
  }
  void Write(const Bytes& bytes) {
    ASSERT_EQ(::send(peer_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  // What the peer can read just now.
  Bytes Read() {
    Bytes bytes(1 << 20);
    const ssize_t size = ::recv(peer_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    bytes.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
    return bytes;
  }

  std::filesystem::path folder_;
  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  UniqueFd peer_;
  std::vector<std::string> events_;
};

TEST_F(SocketBackendTest, FramesGoBehindTheirLength) {
  const auto backend = MakePair();
  TestGuest guest(*backend, *loop_);
  ASSERT_TRUE(guest.Send(ToBytes("hello frame")));
  EXPECT_EQ(Read(), Framed(ToBytes("hello frame")));
}

TEST_F(SocketBackendTest, FramesArriveHoweverTheyAreCut) {
  Bytes wire = Framed(ToBytes("first"));
  testing::Append(wire, Framed(ToBytes("second frame")));
  testing::Append(wire, Framed({}));
  testing::Append(wire, Framed(ToBytes("third")));
  for (const std::size_t step : {std::size_t{1}, std::size_t{3}, wire.size()}) {
    SCOPED_TRACE(step);
    const auto backend = MakePair();
    TestGuest guest(*backend, *loop_);
    for (std::size_t at = 0; at < wire.size(); at += step) {
      const std::size_t end = std::min(at + step, wire.size());
      Write({wire.begin() + static_cast<std::ptrdiff_t>(at),
             wire.begin() + static_cast<std::ptrdiff_t>(end)});
      RunReady(*loop_);
    }
    ASSERT_TRUE(RunUntil(*loop_, [&] { return guest.frames().size() == 3; }));
    EXPECT_EQ(guest.frames()[0], ToBytes("first"));
    EXPECT_EQ(guest.frames()[1], ToBytes("second frame"));
    EXPECT_EQ(guest.frames()[2], ToBytes("third"));
  }
}

TEST_F(SocketBackendTest, APeerThatAnnouncesTooMuchIsHungUpOn) {
  const auto backend = MakePair();
  TestGuest guest(*backend, *loop_);
  Write(ToBytes({0x7f, 0xff, 0xff, 0xff}));
  ASSERT_TRUE(RunUntil(*loop_, [&] { return !backend->connected(); }));
  EXPECT_EQ(events_,
            (std::vector<std::string>{"NETDEV_STREAM_CONNECTED", "NETDEV_STREAM_DISCONNECTED"}));
  EXPECT_TRUE(guest.Send(ToBytes("to nobody")));
}

TEST_F(SocketBackendTest, AGuestWithoutRoomLosesNothing) {
  const auto backend = MakePair();
  TestGuest guest(*backend, *loop_);
  guest.set_taking(false);
  constexpr std::size_t kFrames = 1000;
  std::size_t sent = 0;
  const Bytes wire = Framed(Bytes(1000, std::byte{7}));
  Bytes rest;
  const auto pump = [&] {
    while (sent < kFrames || !rest.empty()) {
      if (rest.empty()) {
        rest = wire;
        ++sent;
      }
      const ssize_t size = ::send(peer_.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
      if (size < 0) return;
      rest.erase(rest.begin(), rest.begin() + size);
    }
  };
  pump();
  RunReady(*loop_);
  EXPECT_TRUE(guest.frames().empty());
  guest.set_taking(true);
  backend->ReceiverReady(0);
  ASSERT_TRUE(RunUntil(*loop_, [&] {
    pump();
    return guest.frames().size() == kFrames;
  }));
}

TEST_F(SocketBackendTest, APeerWithoutRoomHoldsTheGuestBackAndLosesNothing) {
  const auto backend = MakePair();
  TestGuest guest(*backend, *loop_);
  const Bytes frame(1500, std::byte{9});
  const Bytes wire = Framed(frame);
  std::size_t sent = 0;
  while (guest.Send(frame)) ++sent;
  ASSERT_GT(sent, 0U);
  std::size_t received = 0;
  ASSERT_TRUE(RunUntil(*loop_, [&] {
    received += Read().size();
    return guest.writable() > 0;
  }));
  ASSERT_TRUE(guest.Send(frame));
  ++sent;
  ASSERT_TRUE(RunUntil(*loop_, [&] {
    received += Read().size();
    return received >= sent * wire.size();
  }));
  EXPECT_EQ(received, sent * wire.size());
}

TEST_F(SocketBackendTest, AServerTakesOnePeerAfterTheOther) {
  StreamConfig config{.server = true};
  config.address.socket.path = Path("s");
  const auto backend = Make(config);
  TestGuest guest(*backend, *loop_);
  for (const char* const text : {"one", "two"}) {
    auto connected = ConnectSocket(config.address.socket);
    ASSERT_TRUE(connected);
    peer_ = *std::move(connected);
    Write(Framed(ToBytes(text)));
    ASSERT_TRUE(RunUntil(*loop_, [&] { return !guest.frames().empty(); }));
    EXPECT_EQ(guest.frames().back(), ToBytes(text));
    guest.frames().clear();
    peer_.reset();
    ASSERT_TRUE(RunUntil(*loop_, [&] { return !backend->connected(); }));
  }
}

TEST_F(SocketBackendTest, AClientThatReconnectsWaitsForItsServer) {
  StreamConfig config;
  config.address.socket.path = Path("s");
  config.reconnect = std::chrono::milliseconds(1);
  const auto backend = Make(config);
  TestGuest guest(*backend, *loop_);
  EXPECT_FALSE(backend->connected());
  auto listener = ListeningSocket::Create(config.address.socket, 1);
  ASSERT_TRUE(listener);
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(RunUntil(*loop_, [&] { return backend->connected(); }));
    peer_ = listener->Accept();
    ASSERT_TRUE(peer_);
    ASSERT_TRUE(guest.Send(ToBytes("here I am")));
    EXPECT_EQ(Read(), Framed(ToBytes("here I am")));
    peer_.reset();
    ASSERT_TRUE(RunUntil(*loop_, [&] { return !backend->connected(); }));
  }
}

TEST_F(SocketBackendTest, AClientWithoutServerIsAnErrorUnlessItReconnects) {
  StreamConfig config;
  config.address.socket.path = Path("nobody");
  const auto made = StreamBackend::Create(*loop_, "net0", config, {});
  ASSERT_FALSE(made);
  EXPECT_NE(made.error().message().find("nobody"), std::string::npos);
}

TEST_F(SocketBackendTest, DatagramsAreFrames) {
  DgramConfig here;
  here.local.emplace().socket.path = Path("a");
  here.remote.emplace().socket.path = Path("b");
  DgramConfig there;
  there.local = here.remote;
  there.remote = here.local;
  auto one = DgramBackend::Create("one", here);
  auto two = DgramBackend::Create("two", there);
  ASSERT_TRUE(one && two);
  TestGuest first(**one, *loop_);
  TestGuest second(**two, *loop_);
  ASSERT_TRUE(first.Send(ToBytes("ping")));
  ASSERT_TRUE(RunUntil(*loop_, [&] { return second.frames().size() == 1; }));
  EXPECT_EQ(second.frames()[0], ToBytes("ping"));
  second.set_taking(false);
  first.set_taking(false);
  ASSERT_TRUE(second.Send(ToBytes("pong")));
  ASSERT_TRUE(second.Send(ToBytes("pong again")));
  RunReady(*loop_);
  EXPECT_TRUE(first.frames().empty());
  first.set_taking(true);
  (*one)->ReceiverReady(0);
  ASSERT_TRUE(RunUntil(*loop_, [&] { return first.frames().size() == 2; }));
  EXPECT_EQ(first.frames()[1], ToBytes("pong again"));
}

TEST_F(SocketBackendTest, DatagramsWaitForThePeersRoomOrVanishWithoutPeer) {
  DgramConfig config;
  config.local.emplace().socket.path = Path("a");
  config.remote.emplace().socket.path = Path("b");
  auto backend = DgramBackend::Create("net0", config);
  ASSERT_TRUE(backend);
  TestGuest guest(**backend, *loop_);
  EXPECT_TRUE(guest.Send(ToBytes("to nobody")));

  auto name = ResolveAddress(config.remote->socket, SOCK_DGRAM);
  ASSERT_TRUE(name);
  peer_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(peer_.get(), name->get(), name->size), 0);
  int sent = 0;
  while (guest.Send(ToBytes("frame"))) ++sent;
  EXPECT_GT(sent, 0);
  ASSERT_TRUE(RunUntil(*loop_, [&] {
    Read();
    return guest.writable() > 0;
  }));
}

}  // namespace
}  // namespace holdfast::devices::net
