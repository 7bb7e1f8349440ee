// SPDX-License-Identifier: Apache-2.0
#include "devices/socket_chardev.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "devices/chardev_test_support.h"

namespace holdfast::devices {
namespace {

using testing::Bytes;
using testing::Pattern;
using testing::Printer;
using testing::ReadSome;
using testing::SetNonBlocking;

class SocketChardevTest : public testing::ChardevTest {
 protected:
  void Make(const std::string& spec) {
    auto made = MakeChardev(*loop_, spec);
    ASSERT_TRUE(made) << made.error().message();
    chardev_ = *std::move(made);
    Collect(*chardev_);
  }
  sockaddr_un Address() const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path_.data(), path_.size());
    return address;
  }
  static UniqueFd Socket() {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!fd) std::abort();
    return fd;
  }
  UniqueFd Client() const {
    UniqueFd fd = Socket();
    const sockaddr_un address = Address();
    EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    SetNonBlocking(fd.get());
    return fd;
  }
  UniqueFd Server() const {
    UniqueFd fd = Socket();
    const sockaddr_un address = Address();
    EXPECT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(fd.get(), 1), 0);
    return fd;
  }
  // Greets so that both ends know of each other.
  void Greet(const UniqueFd& client) {
    input_.clear();
    EXPECT_EQ(::write(client.get(), "hello", 5), 5);
    EXPECT_TRUE(Until([&] { return input_ == "hello"; }));
    chardev_->Write(Bytes("welcome"));
    std::string got;
    EXPECT_TRUE(Until([&] {
      ReadSome(client.get(), got);
      return got.size() >= 7;
    }));
    EXPECT_EQ(got, "welcome");
  }

  const std::string path_ = Path("socket");
  std::unique_ptr<Chardev> chardev_;
};

TEST_F(SocketChardevTest, AServerServesOneClientAfterAnother) {
  Make("unix:" + path_ + ",server=on,wait=off");
  EXPECT_EQ(chardev_->Describe(), "disconnected:unix:" + path_ + ",server=on");
  EXPECT_EQ(chardev_->Write(Bytes(Pattern(300'000))), 300'000U) << "dropped: nobody is there";
  for (int i = 0; i < 3; ++i) {
    SCOPED_TRACE(i);
    const UniqueFd client = Client();
    Greet(client);
    EXPECT_EQ(chardev_->Describe(), "unix:" + path_ + ",server=on");
  }
  EXPECT_TRUE(Until([&] { return chardev_->Describe().starts_with("disconnected:"); }));
}

TEST_F(SocketChardevTest, ASecondClientWaitsForTheFirstToGo) {
  Make("unix:" + path_ + ",server,nowait");
  UniqueFd first = Client();
  Greet(first);
  const UniqueFd second = Client();
  EXPECT_EQ(::write(second.get(), "second", 6), 6);
  input_.clear();
  TurnsWithin(std::chrono::milliseconds(20));
  EXPECT_EQ(input_, "");
  first.reset();
  EXPECT_TRUE(Until([&] { return input_ == "second"; }));
}

TEST_F(SocketChardevTest, AServerThatWaitsReturnsWithItsClient) {
  std::thread late([&] {
    // The socket file appears between bind and listen, so a connect may have to be repeated.
    const UniqueFd client = Socket();
    const sockaddr_un address = Address();
    while (::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) !=
           0) {
      std::this_thread::yield();
    }
    EXPECT_EQ(::write(client.get(), "early words", 11), 11);
    std::array<char, 5> got{};
    EXPECT_EQ(::recv(client.get(), got.data(), got.size(), MSG_WAITALL), 5);
    EXPECT_EQ(std::string(got.data(), got.size()), "first");
  });
  Make("unix:" + path_ + ",server=on");
  chardev_->Write(Bytes("first"));  // there is a client: not dropped
  EXPECT_TRUE(Until([&] { return input_ == "early words"; }));
  chardev_->Flush();
  late.join();
}

TEST_F(SocketChardevTest, ASlowClientLosesNothing) {
  Make("unix:" + path_ + ",server=on,wait=off");
  const UniqueFd client = Client();
  Greet(client);
  const std::string text = Pattern(1'000'000);
  Printer printer(*chardev_, text, 16);
  EXPECT_TRUE(Until([&] { return printer.stalled(); }));
  std::string got;
  EXPECT_TRUE(Until([&] { return ReadSome(client.get(), got) && got.size() == text.size(); }));
  EXPECT_EQ(got, text);
}

TEST_F(SocketChardevTest, AClientThatGoesWhileTheGuestWaitsFreesTheGuest) {
  Make("unix:" + path_ + ",server=on,wait=off");
  UniqueFd client = Client();
  Greet(client);
  Printer printer(*chardev_, Pattern(2'000'000), 1000);
  EXPECT_TRUE(Until([&] { return printer.stalled(); }));
  client.reset();
  EXPECT_TRUE(Until([&] { return printer.done(); }));
  TurnsWithin(std::chrono::milliseconds(10));
  EXPECT_LE(TurnsWithin(std::chrono::milliseconds(30)), 10) << "no busy loop after the hang-up";
}

TEST_F(SocketChardevTest, AHangUpWhileTheReceiverIsBusyLosesNoInput) {
  Make("unix:" + path_ + ",server=on,wait=off");
  bool busy = true;
  chardev_->SetReceiver([&](std::span<const std::byte> data) -> std::size_t {
    if (busy) return 0;
    input_ += testing::Text(data);
    return data.size();
  });
  {
    const UniqueFd client = Client();
    EXPECT_EQ(::write(client.get(), "last words", 10), 10);
    TurnsWithin(std::chrono::milliseconds(10));
  }
  TurnsWithin(std::chrono::milliseconds(10));
  EXPECT_LE(TurnsWithin(std::chrono::milliseconds(30)), 10);
  busy = false;
  chardev_->ReceiverReady();
  EXPECT_TRUE(Until([&] { return input_ == "last words"; }));
}

TEST_F(SocketChardevTest, AClientConnectsAndStaysWithoutServerWhenItGoes) {
  const UniqueFd listener = Server();
  Make("unix:" + path_);
  UniqueFd server(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  Greet(server);
  EXPECT_EQ(chardev_->Describe(), "unix:" + path_);
  server.reset();
  EXPECT_TRUE(Until([&] { return chardev_->Describe() == "disconnected:unix:" + path_; }));
  EXPECT_EQ(chardev_->Write(Bytes("gone")), 4U);
  chardev_.reset();
  EXPECT_TRUE(std::filesystem::exists(path_)) << "the server's, not ours";
}

TEST_F(SocketChardevTest, TheSocketFileIsMadeAndRemoved) {
  {
    const UniqueFd stale = Server();
  }
  ASSERT_TRUE(std::filesystem::is_socket(path_));
  Make("unix:" + path_ + ",server=on,wait=off");
  Greet(Client());
  chardev_.reset();
  EXPECT_FALSE(std::filesystem::exists(path_));
}

TEST_F(SocketChardevTest, AnotherOnesSocketFileIsLeftAlone) {
  Make("unix:" + path_ + ",server=on,wait=off");
  std::filesystem::rename(path_, path_ + ".old");  // keeps our inode in use
  const UniqueFd other = Server();
  chardev_.reset();
  EXPECT_TRUE(std::filesystem::is_socket(path_));
}

TEST_F(SocketChardevTest, WhatIsNoSocketIsNotReplaced) {
  std::ofstream(path_) << "precious";
  const auto made = MakeChardev(*loop_, "unix:" + path_ + ",server=on,wait=off");
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().message(), "character device 'unix:" + path_ +
                                        ",server=on,wait=off': cannot make the socket '" + path_ +
                                        "': there is something else");
  EXPECT_EQ(std::filesystem::file_size(path_), 8U);
}

TEST_F(SocketChardevTest, PathsMayHaveCommasButNotAnyLength) {
  Make("unix:" + Path("a,,b") + ",server=on,wait=off");
  EXPECT_TRUE(std::filesystem::is_socket(Path("a,b")));
  const auto made = MakeChardev(*loop_, "unix:/" + std::string(200, 'x') + ",server=on,wait=off");
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().hint(), "It may have at most 107 bytes.");
}

TEST_F(SocketChardevTest, AClientLooksForItsServerAgain) {
  auto made = SocketChardev::Create(
      *loop_, {.address = {.path = path_}, .reconnect = std::chrono::milliseconds(10)});
  ASSERT_TRUE(made) << made.error().ToString();  // nobody listens yet
  chardev_ = *std::move(made);
  Collect(*chardev_);
  for (int i = 0; i < 2; ++i) {
    const UniqueFd server = Server();
    SetNonBlocking(server.get());
    UniqueFd peer;
    EXPECT_TRUE(Until([&] {
      peer.reset(::accept4(server.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      return peer.valid();
    }));
    Greet(peer);
    ::unlink(path_.c_str());
  }
}

TEST_F(SocketChardevTest, AClientGivesItsConnectionToOneUserAtATime) {
  const UniqueFd server = Server();
  auto made = SocketChardev::Create(*loop_, {.address = {.path = path_}});
  ASSERT_TRUE(made) << made.error().ToString();
  chardev_ = *std::move(made);
  auto& socket = dynamic_cast<SocketChardev&>(*chardev_);
  {
    auto handover = socket.HandOver();
    ASSERT_TRUE(handover) << handover.error().ToString();
    EXPECT_TRUE(handover->connection.valid());
    EXPECT_EQ(handover->address.path, path_);
    const auto second = socket.HandOver();
    ASSERT_FALSE(second);
    EXPECT_NE(second.error().message().find("is in use"), std::string::npos);
    EXPECT_EQ(socket.Write(Bytes("lost")), 4U);
  }
  const auto later = socket.HandOver();
  ASSERT_TRUE(later) << later.error().ToString();
  EXPECT_FALSE(later->connection.valid()) << "the first user had it";
}

TEST_F(SocketChardevTest, AServerGivesItsListenerAway) {
  Make("unix:" + path_ + ",server=on,wait=off");
  const auto handover = dynamic_cast<SocketChardev&>(*chardev_).HandOver();
  ASSERT_TRUE(handover) << handover.error().ToString();
  EXPECT_FALSE(handover->connection.valid());
  const auto client = ConnectSocket({.path = path_});
  ASSERT_TRUE(client) << client.error().ToString();
  // The new owner finds it, this one leaves it alone.
  ASSERT_TRUE(loop_->RunOnce(std::chrono::milliseconds(1)));
  const UniqueFd found(::accept4(handover->listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  EXPECT_TRUE(found.valid());
}

}  // namespace
}  // namespace holdfast::devices
