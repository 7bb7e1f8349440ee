// SPDX-License-Identifier: Apache-2.0
#include "apps/qmp_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <nlohmann/json.hpp>

namespace holdfast::apps {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr const char* kGreeting =
    R"({"QMP": {"version": {"qemu": {"major": 9, "minor": 1, "micro": 0}, "package": ""},)"
    R"( "capabilities": []}}
{"return": {}, "id": 1}
)";

// Two ends of a connection; the client's `theirs`, on which `text` already waits.
struct Peer {
  explicit Peer(std::string_view text) {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    ours.reset(fds[0]);
    theirs.reset(fds[1]);
    Send(text);
  }
  void Send(std::string_view text) const {
    EXPECT_EQ(::send(ours.get(), text.data(), text.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(text.size()));
  }
  // What the client has sent.
  std::string Sent() const {
    char buffer[4096];
    const ssize_t got = ::recv(ours.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    return {buffer, got > 0 ? static_cast<std::size_t>(got) : 0};
  }
  UniqueFd ours, theirs;
};

TEST(JsonFramerTest, CutsAStreamIntoObjects) {
  const struct {
    std::string_view stream;
    std::vector<std::string> objects;
    bool good = true;
  } cases[] = {
      {"{}{}", {"{}", "{}"}},
      {" {\"a\": 1}\r\n{\n  \"b\": [{}]\n}\n", {"{\"a\": 1}", "{\n  \"b\": [{}]\n}"}},
      {R"({"}": "\"}{"})", {R"({"}": "\"}{"})"}},
      {"{\"a\"", {}},
      {"hello", {}, false},
      {"{}[1]", {"{}"}, false},
      {"{}}", {"{}"}, false},
  };
  for (const auto& c : cases) {
    for (const std::size_t piece : {c.stream.size(), std::size_t{1}}) {
      JsonFramer framer;
      bool good = true;
      for (std::size_t at = 0; at < c.stream.size() && good; at += piece)
        good = framer.Feed(c.stream.substr(at, piece)).has_value();
      std::vector<std::string> objects;
      while (auto object = framer.Take()) objects.push_back(*object);
      EXPECT_EQ(objects, c.objects) << c.stream;
      EXPECT_EQ(good, c.good) << c.stream;
    }
  }
}

TEST(JsonFramerTest, IsBounded) {
  JsonFramer deep;
  EXPECT_FALSE(deep.Feed(std::string(65, '{')));
  JsonFramer long_one;
  ASSERT_TRUE(long_one.Feed("{\""));
  const std::string mebibyte(1U << 20, 'x');
  int fed = 0;
  while (fed < 40 && long_one.Feed(mebibyte)) ++fed;
  EXPECT_EQ(fed, 31);
}

TEST(QmpClientTest, GreetsAndNegotiates) {
  const Peer peer(kGreeting);
  const auto client = QmpClient::Adopt(*peer.theirs.Duplicate(), "vm");
  ASSERT_TRUE(client) << client.error().ToString();
  EXPECT_EQ(client->server(), "QEMU 9.1.0");
  EXPECT_TRUE(client->local());
  EXPECT_THAT(peer.Sent(), HasSubstr("qmp_capabilities"));
}

TEST(QmpClientTest, ABadGreetingIsOneSentence) {
  const struct {
    const char* text;
    const char* error;
  } cases[] = {
      {"SSH-2.0\n", "'vm' does not speak QMP: it sends something else than JSON objects"},
      {"{\"a\": 1}", "'vm' does not speak QMP: it does not greet as such"},
      {"{\"QMP\": 1}", "'vm' does not speak QMP: it does not greet as such"},
      {"{\"\xff\": 1}", "'vm' does not speak QMP: its greeting is not JSON"},
      {"{]", "'vm' does not speak QMP: its greeting is not JSON"},
      {"", "'vm' does not greet within 0 s"},
      {R"({"QMP": {}} {"error": {"class": "GenericError", "desc": "no"}})", "no"},
      {R"({"QMP": {}} {"id": 1})", "'vm' does not speak QMP: its answer is neither yes nor no"},
      {R"({"QMP": {}} {"id": 1, "error": {"desc": 3}})",
       "'vm' does not speak QMP: its error has no text"},
  };
  for (const auto& c : cases) {
    Peer peer(c.text);
    const auto client = QmpClient::Adopt(std::move(peer.theirs), "vm", milliseconds(20));
    ASSERT_FALSE(client) << c.text;
    EXPECT_EQ(client.error().message(), c.error) << c.text;
  }
}

TEST(QmpClientTest, AClosedConnectionIsSaid) {
  Peer peer(kGreeting);
  auto client = QmpClient::Adopt(std::move(peer.theirs), "vm");
  ASSERT_TRUE(client);
  peer.ours.reset();  // with what the client has sent unread: a reset, not an end
  for (int i = 0; i < 2; ++i) {
    const auto reply = client->Execute("stop");
    ASSERT_FALSE(reply);
    EXPECT_EQ(reply.error().message(), "'vm' has closed the connection");
  }
  const auto event = client->NextEvent(milliseconds(0));
  ASSERT_FALSE(event);
  EXPECT_EQ(event.error().message(), "'vm' has closed the connection");
}

TEST(QmpClientTest, RepliesAndEventsAreToldApart) {
  Peer peer(kGreeting);
  auto client = QmpClient::Adopt(std::move(peer.theirs), "vm");
  ASSERT_TRUE(client);
  peer.Send(R"({"event": "STOP", "timestamp": {"seconds": 7, "microseconds": 500000}})"
            R"({"return": "late", "id": 1} {"return": [1], "id": 2})"
            R"({"event": "RE\u001bT", "data": {"a": "\u009b"}})");
  const auto reply = client->Execute("query-x", {{"a", 1}});
  ASSERT_TRUE(reply) << reply.error().ToString();
  EXPECT_EQ(reply->dump(), "[1]");
  EXPECT_THAT(peer.Sent(), HasSubstr(R"({"execute":"query-x","arguments":{"a":1},"id":2})"));
  auto event = client->NextEvent(milliseconds(0));
  ASSERT_TRUE(event && *event);
  EXPECT_EQ((*event)->name, "STOP");
  EXPECT_EQ((*event)->seconds, 7.5);
  EXPECT_EQ((*event)->data, "");
  event = client->NextEvent(milliseconds(0));
  ASSERT_TRUE(event && *event);
  EXPECT_EQ((*event)->name, "RE?T");
  EXPECT_EQ((*event)->data, R"({"a":"?"})");
  event = client->NextEvent(milliseconds(1));
  ASSERT_TRUE(event);
  EXPECT_FALSE(*event);
}

TEST(QmpClientTest, ARefusalKeepsItsWordsAndKind) {
  const struct {
    const char* reply;
    Errc code;
    const char* text;
  } cases[] = {
      {R"({"id": 2, "error": {"class": "CommandNotFound", "desc": "The command x has not been)"
       R"( found"}})",
       Errc::kNotFound, "The command x has not been found"},
      {R"({"id": 2, "error": {"class": "GenericError", "desc": "no\u001b[2J"}})",
       Errc::kInvalidArgument, "no?[2J"},
  };
  for (const auto& c : cases) {
    Peer peer(kGreeting);
    auto client = QmpClient::Adopt(std::move(peer.theirs), "vm");
    ASSERT_TRUE(client);
    peer.Send(c.reply);
    const auto reply = client->Execute("x");
    ASSERT_FALSE(reply);
    EXPECT_EQ(reply.error().code(), c.code);
    EXPECT_EQ(reply.error().message(), c.text);
  }
}

TEST(QmpClientTest, AServerThatDoesNotAnswerIsGivenUp) {
  Peer peer(kGreeting);
  auto client = QmpClient::Adopt(std::move(peer.theirs), "vm");
  ASSERT_TRUE(client);
  const auto reply = client->Execute("x", milliseconds(10));
  ASSERT_FALSE(reply);
  EXPECT_EQ(reply.error().message(), "'vm' does not answer");
}

TEST(QmpClientTest, BadAddressesAreOneSentence) {
  const struct {
    std::string address;
    const char* error;
  } cases[] = {
      {"/nonexistent/qmp", "cannot connect to '/nonexistent/qmp': No such file or directory"},
      {"unix:/nonexistent/qmp", "cannot connect to '/nonexistent/qmp': No such file or directory"},
      {"nosuch", "cannot connect to 'nosuch': No such file or directory"},
      {"/dev/null", "cannot connect to '/dev/null': Connection refused"},
      {"tcp:host", "'tcp:host' is no host and port"},
      {"127.0.0.1:1", "cannot connect to '127.0.0.1:1': Connection refused"},
      {"unix:", "'' is no path of a socket: it has 0 characters"},
  };
  for (const auto& c : cases) {
    const auto client = QmpClient::Connect(c.address);
    ASSERT_FALSE(client) << c.address;
    EXPECT_EQ(client.error().message(), c.error);
    EXPECT_NE(client.error().hint(), "");
  }
}

}  // namespace
}  // namespace holdfast::apps
