// SPDX-License-Identifier: Apache-2.0
#include "migration/channel.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <future>
#include <vector>

#include "migration/connection.h"
#include "migration/socket_channel.h"
#include "migration/tls_test_support.h"

namespace holdfast::migration {
namespace {

using std::chrono::milliseconds;
using test::TestFolder;
using Pair = std::pair<std::unique_ptr<SocketChannel>, std::unique_ptr<SocketChannel>>;

constexpr milliseconds kLong = std::chrono::seconds(120);

Pair MakePair() {
  std::array<int, 2> ends{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  return {*SocketChannel::Create(UniqueFd(ends[0]), "left"),
          *SocketChannel::Create(UniqueFd(ends[1]), "right")};
}

std::vector<std::byte> Pattern(std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 4096);
  return bytes;
}

// Waits for the next connection of a listener.
std::unique_ptr<Channel> AcceptOne(Listener& listener) {
  pollfd ready{.fd = listener.fd(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(::poll(&ready, 1, static_cast<int>(kLong.count())), 1);
  auto channel = listener.Accept();
  EXPECT_TRUE(channel) << channel.error().message();
  return channel ? *std::move(channel) : nullptr;
}

TEST(ChannelTest, CarriesManyPartsInOrderWhateverTheirSizes) {
  auto [left, right] = MakePair();
  const std::vector<std::byte> all = Pattern(3 << 20);
  std::vector<Channel::Bytes> parts = {{}};  // empty ones change nothing
  for (std::size_t at = 0, size = 1; at < all.size(); at += size, size = size * 3 % 65537 + 1) {
    size = std::min(size, all.size() - at);
    parts.push_back(Channel::Bytes(all).subspan(at, size));
    parts.emplace_back();
  }
  auto written = std::async(std::launch::async, [&] { return left->WriteAll(parts); });
  std::vector<std::byte> got(all.size());
  EXPECT_TRUE(right->ReadAll(got));
  EXPECT_TRUE(written.get());
  EXPECT_EQ(got, all);
}

TEST(ChannelTest, TheEndIsAnErrorThatSaysSo) {
  auto [left, right] = MakePair();
  const auto half = Pattern(5);
  ASSERT_TRUE(left->WriteAll(Channel::Bytes(half)));
  left.reset();
  EXPECT_EQ(right->WaitReadable(kLong), true);
  std::array<std::byte, 10> data{};
  const Status read = right->ReadAll(data);
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().message(), "right: the other side closed the connection");
  EXPECT_TRUE(IsConnectionLost(read.error()));
  const Status written = right->WriteAll(Channel::Bytes(half));
  ASSERT_FALSE(written);
  EXPECT_TRUE(IsConnectionLost(written.error()));
}

TEST(ChannelTest, ShutdownEndsAReadAndAWriteThatWait) {
  auto [left, right] = MakePair();
  const auto much = Pattern(16 << 20);  // more than the socket's buffers
  auto written =
      std::async(std::launch::async, [&] { return left->WriteAll(Channel::Bytes(much)); });
  std::byte one{};
  auto read = std::async(std::launch::async, [&] { return left->ReadAll({&one, 1}); });
  ASSERT_EQ(right->WaitReadable(kLong), true);  // one of them is at work
  left->Shutdown();
  for (Status status : {written.get(), read.get()}) {
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().os_errno(), ECANCELED) << status.error().message();
    EXPECT_FALSE(IsConnectionLost(status.error()));
  }
}

TEST(ChannelTest, AStallIsAnErrorThatSaysSo) {
  auto [left, right] = MakePair();
  left->SetStallTimeout(milliseconds(30));
  std::byte one{};
  const Status read = left->ReadAll({&one, 1});
  ASSERT_FALSE(read);
  EXPECT_EQ(read.error().message(), "left: the other side has sent nothing for 0.03 seconds");
  EXPECT_TRUE(IsConnectionLost(read.error()));
  const auto much = Pattern(16 << 20);
  const Status written = left->WriteAll(Channel::Bytes(much));
  ASSERT_FALSE(written);
  EXPECT_EQ(written.error().message(), "left: the other side has taken nothing for 0.03 seconds");
  EXPECT_EQ(right->WaitReadable(milliseconds(0)), true);
}

TEST(ChannelTest, WaitingForSomethingToReadEndsInTime) {
  auto [left, right] = MakePair();
  EXPECT_EQ(left->WaitReadable(milliseconds(10)), false);
  ASSERT_TRUE(right->WriteAll(Channel::Bytes(Pattern(1))));
  EXPECT_EQ(left->WaitReadable(kLong), true);
}

TEST(ChannelTest, PassesDescriptorsOn) {
  auto [left, right] = MakePair();
  const TestFolder folder;
  folder.Write("a", "here");
  const UniqueFd file(::open((folder / "a").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(left->SendFd(file.get()));
  const auto got = right->ReceiveFd();
  ASSERT_TRUE(got) << got.error().message();
  std::array<char, 5> text{};
  EXPECT_EQ(::pread(got->get(), text.data(), 4, 0), 4);
  EXPECT_STREQ(text.data(), "here");
  EXPECT_NE(::fcntl(got->get(), F_GETFD) & FD_CLOEXEC, 0);
  // A byte without one is another protocol.
  ASSERT_TRUE(left->WriteAll(Channel::Bytes(Pattern(1))));
  const auto none = right->ReceiveFd();
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code(), Errc::kMalformed);
}

TEST(ConnectionTest, GoesOverSocketsOfBothKinds) {
  const TestFolder folder;
  for (const Address& address :
       {Address(TcpAddress{"127.0.0.1", "0"}), Address(TcpAddress{"", "0"}),
        Address(UnixAddress{folder / "socket"})}) {
    auto listener = Listener::Listen(address);
    ASSERT_TRUE(listener) << listener.error().message();
    EXPECT_NE((*listener)->address(), Address(TcpAddress{"127.0.0.1", "0"}))
        << "the port is chosen";
    auto none = (*listener)->Accept();
    ASSERT_TRUE(none);
    EXPECT_EQ(*none, nullptr) << "nobody has come";
    std::vector<std::unique_ptr<Channel>> clients;
    for (int i = 0; i < 20; ++i) {
      auto client = Connect((*listener)->address(), {});
      ASSERT_TRUE(client) << client.error().message();
      clients.push_back(*std::move(client));
    }
    for (auto& client : clients) {
      const auto server = AcceptOne(**listener);
      ASSERT_NE(server, nullptr);
      ASSERT_TRUE(client->WriteAll(Channel::Bytes(Pattern(100))));
      std::vector<std::byte> got(100);
      EXPECT_TRUE(server->ReadAll(got));
      EXPECT_EQ(got, Pattern(100));
      EXPECT_FALSE(server->encrypted());
    }
  }
  EXPECT_NE(::access((folder / "socket").c_str(), F_OK), 0) << "the socket's file stays behind";
}

TEST(ConnectionTest, AProgramIsTheOtherSide) {
  auto cat = Connect(*ParseAddress("exec:cat"), {});
  ASSERT_TRUE(cat) << cat.error().message();
  ASSERT_TRUE((*cat)->WriteAll(Channel::Bytes(Pattern(1000))));
  std::vector<std::byte> got(1000);
  EXPECT_TRUE((*cat)->ReadAll(got));
  EXPECT_EQ(got, Pattern(1000));

  auto incoming = Listener::Listen(ExecAddress{{"echo", "hello"}});
  ASSERT_TRUE(incoming) << incoming.error().message();
  const auto channel = AcceptOne(**incoming);
  std::array<std::byte, 6> text{};
  ASSERT_TRUE(channel->ReadAll(text));
  EXPECT_EQ(std::memcmp(text.data(), "hello\n", 6), 0);
  auto second = (*incoming)->Accept();
  EXPECT_EQ(*second, nullptr) << "there is one connection only";
}

TEST(ConnectionTest, AFileIsWrittenAndReadFromItsOffset) {
  const TestFolder folder;
  folder.Write("f", "0123456789");
  const FileAddress address{folder / "f", 4};
  auto out = Connect(address, {});
  ASSERT_TRUE(out) << out.error().message();
  ASSERT_TRUE((*out)->WriteAll(std::as_bytes(std::span("ab", 2))));
  auto in = Listener::Listen(address);
  ASSERT_TRUE(in);
  std::array<std::byte, 6> text{};
  ASSERT_TRUE(AcceptOne(**in)->ReadAll(text));
  EXPECT_EQ(std::memcmp(text.data(), "ab6789", 6), 0);
}

TEST(ConnectionTest, ADescriptorIsTakenByItsNumberOrItsName) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
  auto named = Connect(FdAddress{"mig"}, {.services = {.take_fd = [&](const std::string& name) {
                                            EXPECT_EQ(name, "mig");
                                            return Result<UniqueFd>(UniqueFd(ends[0]));
                                          }}});
  auto numbered = Listener::Listen(FdAddress{std::to_string(ends[1])});
  ASSERT_TRUE(named && numbered);
  EXPECT_NE(::fcntl(ends[1], F_GETFD) & FD_CLOEXEC, 0);
  ASSERT_TRUE((*named)->WriteAll(Channel::Bytes(Pattern(3))));
  std::vector<std::byte> got(3);
  EXPECT_TRUE(AcceptOne(**numbered)->ReadAll(got));
}

TEST(ConnectionTest, SaysWhyItCannotBe) {
  const TestFolder folder;
  folder.Write("file", "");
  const struct {
    Address address;
    std::string error;
  } cases[] = {
      {UnixAddress{folder / "none"},
       "Failed to connect to 'unix:" + folder / "none" + "': No such file or directory"},
      {UnixAddress{std::string(200, 'a')},
       "UNIX socket path '" + std::string(200, 'a') + "' is too long"},
      {FdAddress{"nosuch"}, "File descriptor named 'nosuch' has not been found"},
      {FdAddress{"1"}, "fd:1 is no socket or pipe that holdfast was started with"},
      {FdAddress{"99999"}, "fd:99999 is no socket or pipe that holdfast was started with"},
      {ExecAddress{{"/nosuch/program"}},
       "cannot start '/nosuch/program': No such file or directory"},
      {FileAddress{folder / "no/file"},
       "cannot open '" + folder / "no/file" + "': No such file or directory"},
  };
  for (const auto& c : cases) {
    const auto channel = Connect(c.address, {});
    ASSERT_FALSE(channel) << Describe(c.address);
    EXPECT_EQ(channel.error().message(), c.error);
  }
  const auto confined = Connect(ExecAddress{{"true"}}, {.services = {.may_spawn = false}});
  ASSERT_FALSE(confined);
  EXPECT_EQ(confined.error().message(), "exec:true: the sandbox lets no program start");
}

TEST(ConnectionTest, CanBeCancelledWhileItWaits) {
  const TestFolder folder;
  // A server that takes nobody: what comes after its queue is full waits.
  auto full = devices::ListeningSocket::Create({.path = folder / "full"}, 0);
  ASSERT_TRUE(full);
  std::stop_source cancel;
  const ConnectOptions options{.cancel = cancel.get_token(), .timeout = kLong};
  auto first = Connect(UnixAddress{folder / "full"}, options);
  ASSERT_TRUE(first);
  auto waiting = std::async(std::launch::async,
                            [&] { return Connect(UnixAddress{folder / "full"}, options); });
  cancel.request_stop();
  const auto outcome = waiting.get();
  ASSERT_FALSE(outcome);
  EXPECT_EQ(outcome.error().os_errno(), ECANCELED) << outcome.error().message();
}

}  // namespace
}  // namespace holdfast::migration
