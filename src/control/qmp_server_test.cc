// SPDX-License-Identifier: Apache-2.0
#include "control/qmp_server.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/fd_passing.h"
#include "control/passed_fds.h"
#include "control/qmp_session.h"
#include "devices/chardev.h"
#include "object/object.h"

namespace holdfast::control {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr const char* kNegotiate = R"({"execute": "qmp_capabilities"})";

class QmpServerTest : public ::testing::Test {
 protected:
  QmpServerTest() {
    std::string name = (std::filesystem::temp_directory_path() / "holdfast-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) ADD_FAILURE() << "mkdtemp";
    folder_ = name;
    vm_.version = "1";
    vm_.objects = &objects_;
    vm_.quit = [this] { ++quits_; };
    loop_ = *EventLoop::Create();
    server_ = std::make_unique<QmpServer>(*loop_, vm_);
  }
  ~QmpServerTest() override {
    server_.reset();
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  devices::SocketAddress Address() const { return {.path = folder_ + "/qmp"}; }
  void Listen() {
    auto socket = devices::ListeningSocket::Create(Address(), 128);
    ASSERT_TRUE(socket) << socket.error().ToString();
    ASSERT_TRUE(server_->Listen(*std::move(socket), false));
  }
  UniqueFd Connect() const { return *devices::ConnectSocket(Address()); }

  // Lets the loop run until `done`, at most for some seconds.
  template <typename Done>
  bool Until(Done done) {
    const auto deadline = EventLoop::Clock::now() + std::chrono::seconds(20);
    while (!done()) {
      if (EventLoop::Clock::now() > deadline) return false;
      EXPECT_TRUE(loop_->RunOnce(milliseconds(20)));
    }
    return true;
  }
  static void Send(const UniqueFd& client, std::string_view text) {
    EXPECT_EQ(::send(client.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  // All that has come so far; empty at the end of the stream too.
  static std::string Receive(const UniqueFd& client) {
    std::string text(1 << 20, '\0');
    const ssize_t got = ::recv(client.get(), text.data(), text.size(), MSG_DONTWAIT);
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return text;
  }
  // Waits until `wanted` has come.
  bool Says(const UniqueFd& client, std::string_view wanted) {
    std::string text;
    return Until([&] {
      text += Receive(client);
      return text.find(wanted) != std::string::npos;
    });
  }
  UniqueFd Negotiated() {
    UniqueFd client = Connect();
    EXPECT_TRUE(Says(client, "QMP"));
    Send(client, kNegotiate);
    EXPECT_TRUE(Says(client, "return"));
    return client;
  }

  std::string folder_;
  object::ObjectStore objects_;
  VmContext vm_;
  int quits_ = 0;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<QmpServer> server_;
};

TEST_F(QmpServerTest, ServesSeveralClientsAtOnceAndTellsEventsToAll) {
  Listen();
  const std::array<UniqueFd, 3> clients = {Negotiated(), Negotiated(), Negotiated()};
  EXPECT_EQ(server_->clients(), 3U);
  const UniqueFd silent = Connect();
  EXPECT_TRUE(Says(silent, "QMP"));
  server_->Emit("STOP");
  for (const UniqueFd& client : clients) EXPECT_TRUE(Says(client, R"("event": "STOP")"));
  EXPECT_EQ(Receive(silent), "") << "it has not negotiated";
}

TEST_F(QmpServerTest, LetsGoOfAClientThatHangsUpWithItsRepliesUnread) {
  Listen();
  UniqueFd client = Negotiated();
  ASSERT_EQ(::fcntl(client.get(), F_SETFL, O_NONBLOCK), 0);
  const std::string request = R"({"execute": "query-qmp-schema"})";
  // Until nothing more goes in: replies fill its socket, then the session, then its requests.
  for (int idle = 0; idle < 50;) {
    const bool sent = ::send(client.get(), request.data(), request.size(), MSG_NOSIGNAL) > 0;
    idle = sent ? 0 : idle + 1;
    EXPECT_TRUE(loop_->RunOnce(milliseconds(0)));
  }
  EXPECT_EQ(server_->clients(), 1U);
  client.reset();
  EXPECT_TRUE(Until([&] { return server_->clients() == 0; }));
}

TEST_F(QmpServerTest, GoesOnWithAClientThatReadsAgain) {
  Listen();
  const UniqueFd client = Negotiated();
  const std::string request = R"({"execute": "query-qmp-schema"})";
  constexpr int kRequests = 40;
  for (int i = 0; i < kRequests; ++i) Send(client, request);
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(loop_->RunOnce(milliseconds(0)));
  int replies = 0;
  EXPECT_TRUE(Until([&] {
    for (const char c : Receive(client)) replies += c == '\n' ? 1 : 0;
    return replies == kRequests;
  }));
}

TEST_F(QmpServerTest, TurnsAwayWhoIsOneTooMany) {
  Listen();
  std::vector<UniqueFd> clients;
  for (std::size_t i = 0; i < QmpServer::kMostClients; ++i) clients.push_back(Connect());
  EXPECT_TRUE(Until([&] { return server_->clients() == QmpServer::kMostClients; }));
  const UniqueFd refused = Connect();
  EXPECT_TRUE(Says(refused, "there are 64 clients already"));
  clients.pop_back();
  EXPECT_TRUE(Until([&] { return server_->clients() == QmpServer::kMostClients - 1; }));
  const UniqueFd welcome = Connect();
  EXPECT_TRUE(Says(welcome, "QMP"));
}

TEST_F(QmpServerTest, AnswersQuitBeforeItEnds) {
  Listen();
  const UniqueFd client = Negotiated();
  Send(client, R"({"execute": "quit"})");
  EXPECT_TRUE(Says(client, R"({"return": {}})"));
  EXPECT_TRUE(Until([&] { return quits_ == 1; }));
}

TEST_F(QmpServerTest, RemovesItsSocketAndHangsUp) {
  Listen();
  const UniqueFd client = Negotiated();
  EXPECT_TRUE(std::filesystem::exists(Address().path));
  server_.reset();
  EXPECT_FALSE(std::filesystem::exists(Address().path));
  char byte = 0;
  EXPECT_EQ(::recv(client.get(), &byte, 1, 0), 0);
}

TEST_F(QmpServerTest, FlushSendsWhatIsQueued) {
  Listen();
  const UniqueFd client = Negotiated();
  server_->Emit("POWERDOWN");
  server_->Flush();
  EXPECT_THAT(Receive(client), HasSubstr("POWERDOWN"));
}

TEST_F(QmpServerTest, ServesAChardevForGood) {
  auto front = devices::MakeChardev(*loop_, "unix:" + Address().path + ",server=on,wait=off");
  ASSERT_TRUE(front) << front.error().ToString();
  server_->Serve(**front, false);
  const UniqueFd client = Connect();
  Send(client, kNegotiate);
  EXPECT_TRUE(Says(client, R"({"return": {}})"));
  Send(client, R"({"execute": "query-version"}{"execute": "nosuch"})");
  EXPECT_TRUE(Says(client, "The command nosuch has not been found"));
  server_->Emit("RESUME");
  EXPECT_TRUE(Says(client, R"("event": "RESUME")"));
  server_.reset();  // before the chardev it talks through
}

// ---- Descriptors that clients pass -------------------------------------------------------------

class PassedFdsTest : public QmpServerTest {
 protected:
  PassedFdsTest() {
    vm_.passed_fds = &fds_;
    server_ = std::make_unique<QmpServer>(*loop_, vm_);
    Listen();
    client_ = Negotiated();
  }
  // A pipe's writing end is gone once nobody has it any more: that its reading end sees.
  struct Pipe {
    UniqueFd reading, writing;
    bool closed() const {
      char byte = 0;
      return ::read(reading.get(), &byte, 1) == 0;
    }
  };
  static Pipe MakePipe() {
    std::array<int, 2> ends{};
    EXPECT_EQ(::pipe2(ends.data(), O_CLOEXEC | O_NONBLOCK), 0);
    return {UniqueFd(ends[0]), UniqueFd(ends[1])};
  }
  void SendWith(std::string_view text, std::vector<const UniqueFd*> fds) const {
    std::vector<int> numbers;
    for (const UniqueFd* fd : fds) numbers.push_back(fd->get());
    EXPECT_EQ(SendWithFds(client_.get(), std::as_bytes(std::span(text)), numbers, MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  void Pass(std::string_view name, Pipe& pipe) {
    SendWith(Command("getfd", name), {&pipe.writing});
    pipe.writing.reset();
  }
  static std::string Command(std::string_view command, std::string_view name) {
    return Json{{"execute", command}, {"arguments", {{"fdname", name}}}}.dump();
  }

  PassedFds fds_;
  UniqueFd client_;
};

TEST_F(PassedFdsTest, AreThereByNameUntilSomebodyTakesOrClosesThem) {
  Pipe first = MakePipe(), second = MakePipe(), third = MakePipe();
  Pass("one", first);
  ASSERT_TRUE(Says(client_, "return"));
  Pass("two", second);
  ASSERT_TRUE(Says(client_, "return"));
  auto taken = fds_.Take("one");
  ASSERT_TRUE(taken);
  EXPECT_EQ(::fcntl(taken->get(), F_GETFD), FD_CLOEXEC);
  EXPECT_FALSE(first.closed());
  taken->reset();
  EXPECT_TRUE(first.closed()) << "it was the one that was passed";
  EXPECT_FALSE(fds_.Take("one"));
  // Another one of the name takes its place.
  EXPECT_FALSE(second.closed());
  Pass("two", third);
  ASSERT_TRUE(Says(client_, "return"));
  EXPECT_TRUE(second.closed());
  EXPECT_FALSE(third.closed());
  Send(client_, Command("closefd", "two"));
  ASSERT_TRUE(Says(client_, "return"));
  EXPECT_TRUE(third.closed());
  Send(client_, Command("closefd", "two"));
  EXPECT_TRUE(Says(client_, "File descriptor named 'two' not found"));
}

TEST_F(PassedFdsTest, EachCommandTakesTheNextAndNobodyKeepsTheRest) {
  Pipe first = MakePipe(), second = MakePipe(), third = MakePipe();
  SendWith(Command("getfd", "one") + Command("getfd", "two"),
           {&first.writing, &second.writing, &third.writing});
  for (Pipe* const pipe : {&first, &second, &third}) pipe->writing.reset();
  std::string replies;
  ASSERT_TRUE(Until([&] {
    replies += Receive(client_);
    return std::ranges::count(replies, '\n') == 2;
  }));
  EXPECT_TRUE(third.closed());
  ASSERT_TRUE(fds_.Take("one"));
  EXPECT_TRUE(first.closed());
  ASSERT_TRUE(fds_.Take("two"));
  EXPECT_TRUE(second.closed());
}

TEST_F(PassedFdsTest, WhatIsWrongIsSaidInQemusWords) {
  Send(client_, Command("getfd", "one"));
  EXPECT_TRUE(Says(client_, "No file descriptor supplied via SCM_RIGHTS"));
  for (const char* const name : {"1st", ""}) {
    Pipe pipe = MakePipe();
    Pass(name, pipe);
    EXPECT_TRUE(Says(client_, "Parameter 'fdname' expects a name not starting with a digit"));
    EXPECT_TRUE(pipe.closed());
  }
  // One that nobody asked for is not for the next who asks.
  Pipe stray = MakePipe();
  SendWith(R"({"execute": "query-version"})", {&stray.writing});
  stray.writing.reset();
  ASSERT_TRUE(Says(client_, "return"));
  EXPECT_TRUE(stray.closed());
  Send(client_, Command("getfd", "one"));
  EXPECT_TRUE(Says(client_, "No file descriptor supplied via SCM_RIGHTS"));
}

TEST_F(PassedFdsTest, MoreThanThereIsRoomForAreClosed) {
  Pipe pipe = MakePipe();
  // A message that is not complete keeps what came with it.
  for (int i = 0; i < 3; ++i)
    SendWith(" {", std::vector<const UniqueFd*>(QmpSession::kMostFds, &pipe.writing));
  pipe.writing.reset();
  for (int i = 0; i < 3; ++i) Send(client_, "}");
  ASSERT_TRUE(Says(client_, "error"));
  EXPECT_TRUE(pipe.closed());
  Pipe last = MakePipe();
  Pass("last", last);
  ASSERT_TRUE(Says(client_, "return"));
  client_.reset();
  ASSERT_TRUE(Until([&] { return server_->clients() == 0; }));
  EXPECT_FALSE(last.closed()) << "a name outlives who gave it";
}

}  // namespace
}  // namespace holdfast::control
