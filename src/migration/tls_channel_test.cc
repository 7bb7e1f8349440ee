// SPDX-License-Identifier: Apache-2.0
#include "migration/tls_channel.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <future>
#include <thread>
#include <utility>
#include <vector>

#include "migration/connection.h"
#include "migration/socket_channel.h"
#include "migration/tls_test_support.h"

namespace holdfast::migration {
namespace {

using test::MakeCredentials;
using test::TestAuthority;
using test::TestFolder;
using ::testing::HasSubstr;
using Outcome = Result<std::unique_ptr<Channel>>;
using Credentials = std::shared_ptr<const object::TlsContext>;

std::string ErrorOf(const Outcome& outcome) {
  return outcome ? "no error" : outcome.error().message();
}

std::pair<std::unique_ptr<Channel>, std::unique_ptr<Channel>> MakePair() {
  std::array<int, 2> ends{};
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  return {*SocketChannel::Create(UniqueFd(ends[0]), "client"),
          *SocketChannel::Create(UniqueFd(ends[1]), "server")};
}

class TlsChannelTest : public ::testing::Test {
 protected:
  TlsChannelTest() {
    authority_.Publish(folder_);
    authority_.Sign(folder_, "server", "DNS:host.example,IP:192.0.2.1");
    authority_.Sign(folder_, "client", "");
    folder_.Write("keys.psk",
                  "# comment\nother:00112233445566778899aabbccddeeff\n"
                  "vm:ffeeddccbbaa99887766554433221100\n");
  }
  Credentials Make(const std::string& type, const std::string& more) const {
    auto made = MakeCredentials(type + ",id=t,dir=" + folder_.path() + "," + more);
    EXPECT_TRUE(made) << made.error().message();
    return made ? *made : nullptr;
  }
  Credentials Server() const { return Make("tls-creds-x509", "endpoint=server"); }
  Credentials Client() const { return Make("tls-creds-x509", "endpoint=client"); }

  // Both sides of a handshake over a socket pair.
  std::pair<Outcome, Outcome> Shake(const TlsOptions& client, const TlsOptions& server) {
    auto [near, far] = MakePair();
    auto theirs = std::async(std::launch::async, [&, far = std::move(far)]() mutable {
      return WrapTls(std::move(far), server);
    });
    Outcome ours = WrapTls(std::move(near), client);
    // TLS 1.3 tells a client of its certificate's fate only when it reads.
    if (ours) {
      (void)(*ours)->WriteAll(Channel::Bytes(kByte));
    }
    Outcome answer = theirs.get();
    return {std::move(ours), std::move(answer)};
  }

  static constexpr std::array<std::byte, 1> kByte{};
  TestFolder folder_;
  const TestAuthority authority_{"CA"};
};

TEST_F(TlsChannelTest, EncryptsBothWaysAtOnce) {
  // The key changes several times on the way.
  TlsOptions client{.credentials = Client(), .hostname = "host.example", .rekey_bytes = 1 << 20};
  auto [ours, theirs] = Shake(client, {.credentials = Server(), .rekey_bytes = 1 << 20});
  ASSERT_TRUE(ours) << ErrorOf(ours);
  ASSERT_TRUE(theirs) << ErrorOf(theirs);
  EXPECT_TRUE((*ours)->encrypted());
  EXPECT_EQ((*ours)->peer(), "client");
  std::array<std::byte, 1> first{};
  EXPECT_TRUE((*theirs)->ReadAll(first));
  EXPECT_EQ((*theirs)->WaitReadable(std::chrono::milliseconds(0)), false);

  std::vector<std::byte> data(5 << 20);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 13 + i / 999);
  const auto write = [&data](Channel& channel) {
    std::vector<Channel::Bytes> parts;
    for (std::size_t at = 0, size = 1; at < data.size(); at += size, size = size * 5 % 70001 + 1) {
      size = std::min(size, data.size() - at);
      parts.push_back(Channel::Bytes(data).subspan(at, size));
    }
    return channel.WriteAll(parts);
  };
  const auto read = [&data](Channel& channel) {
    std::vector<std::byte> got(data.size());
    return channel.ReadAll(got) && got == data;
  };
  auto there = std::async(std::launch::async, [&] { return write(**ours).has_value(); });
  auto back = std::async(std::launch::async, [&] { return write(**theirs).has_value(); });
  auto arrives = std::async(std::launch::async, [&] { return read(**theirs); });
  EXPECT_TRUE(read(**ours));
  EXPECT_TRUE(arrives.get() && there.get() && back.get());

  ours->reset();
  const Status end = (*theirs)->ReadAll(first);
  ASSERT_FALSE(end);
  EXPECT_EQ(end.error().message(), "server: the other side closed the connection");
}

TEST_F(TlsChannelTest, WhatPassesIsNotReadable) {
  auto [near, far] = MakePair();
  auto [left, right] = MakePair();
  // In the middle, somebody who listens.
  std::string seen;
  const auto forward = [&seen](Channel& from, Channel& to, bool note) {
    std::array<std::byte, 4096> data{};
    while (const auto got = from.ReadSome(data)) {
      if (note) seen.append(reinterpret_cast<const char*>(data.data()), *got);
      if (!to.WriteAll(Channel::Bytes(data).first(*got))) break;
    }
    to.Shutdown();
  };
  std::thread there([&, &from = *far, &to = *left] { forward(from, to, true); });
  std::thread back([&, &from = *left, &to = *far] { forward(from, to, false); });
  auto server = std::async(std::launch::async, [&, right = std::move(right)]() mutable {
    return WrapTls(std::move(right), {.credentials = Server()});
  });
  {
    Outcome client =
        WrapTls(std::move(near), {.credentials = Client(), .hostname = "host.example"});
    ASSERT_TRUE(client) << ErrorOf(client);
    Outcome other = server.get();
    ASSERT_TRUE(other) << ErrorOf(other);
    constexpr std::string_view kSecret = "the guest's memory";
    ASSERT_TRUE((*client)->WriteAll(std::as_bytes(std::span(kSecret))));
    std::array<std::byte, kSecret.size()> got{};
    EXPECT_TRUE((*other)->ReadAll(got));
    client->reset();
    EXPECT_FALSE((*other)->ReadAll(got));
  }
  there.join();
  back.join();
  EXPECT_GT(seen.size(), 500U);
  EXPECT_EQ(seen.find("guest"), std::string::npos);
}

TEST_F(TlsChannelTest, ChecksWhoIsAtTheOtherSide) {
  const TestFolder foreign;
  const TestAuthority other("other CA");
  other.Publish(foreign);
  other.Sign(foreign, "server", "DNS:host.example");
  other.Sign(foreign, "client", "");
  const auto make = [](const TestFolder& folder, const std::string& end) {
    return *MakeCredentials("tls-creds-x509,id=t,dir=" + folder.path() + ",endpoint=" + end);
  };
  const TestFolder nameless;
  authority_.Publish(nameless);
  const struct {
    const char* what;
    TlsOptions client;
    TlsOptions server;
    const char* client_error;  // null: whatever it is
    const char* server_error;
  } cases[] = {
      {"the right name", {Client(), "host.example"}, {Server()}, "no error", "no error"},
      {"the right address", {Client(), "192.0.2.1"}, {Server()}, "no error", "no error"},
      {"another name",
       {Client(), "evil.example"},
       {Server()},
       "client: the other side's certificate is not trusted: hostname mismatch",
       nullptr},
      {"another address",
       {Client(), "192.0.2.2"},
       {Server()},
       "client: the other side's certificate is not trusted: IP address mismatch",
       nullptr},
      {"no name", {Client(), ""}, {Server()}, "No hostname available for TLS", nullptr},
      {"another CA's server",
       {Client(), "host.example"},
       {make(foreign, "server")},
       "client: the other side's certificate is not trusted: self-signed certificate "
       "in certificate chain",
       nullptr},
      {"another CA's client",
       {make(foreign, "client"), "host.example"},
       {Server()},
       nullptr,
       nullptr},
      {"a client without certificate",
       {make(nameless, "client"), "host.example"},
       {Server()},
       nullptr,
       "server: the TLS handshake failed: peer did not return a certificate"},
      {"whom nobody asks",
       {make(nameless, "client"), "host.example"},
       {Make("tls-creds-x509", "endpoint=server,verify-peer=off")},
       "no error",
       "no error"},
      {"a client that trusts anybody",
       {Make("tls-creds-x509", "endpoint=client,verify-peer=off"), ""},
       {Server()},
       "no error",
       "no error"},
  };
  for (const auto& c : cases) {
    auto [ours, theirs] = Shake(c.client, c.server);
    if (c.client_error != nullptr) {
      EXPECT_EQ(ErrorOf(ours), c.client_error) << c.what;
    }
    if (c.server_error != nullptr) {
      EXPECT_EQ(ErrorOf(theirs), c.server_error) << c.what;
    }
    const bool good = c.client_error != nullptr && std::string_view(c.client_error) == "no error";
    EXPECT_EQ(theirs.has_value(), good) << c.what << ": " << ErrorOf(theirs);
  }
}

TEST_F(TlsChannelTest, KeysThatBothKnowTakeThePlaceOfCertificates) {
  const auto server = Make("tls-creds-psk", "endpoint=server");
  const TestFolder wrong;
  wrong.Write("keys.psk",
              "vm:00000000000000000000000000000000\n"
              "nobody:00000000000000000000000000000000\n");
  const auto make_wrong = [&wrong](const std::string& user) {
    return *MakeCredentials("tls-creds-psk,id=t,username=" + user + ",dir=" + wrong.path());
  };
  const struct {
    const char* what;
    Credentials client;
    Credentials server;
    bool good;
  } cases[] = {
      {"a user", Make("tls-creds-psk", "username=vm"), server, true},
      {"another user", Make("tls-creds-psk", "username=other"), server, true},
      {"a wrong key", make_wrong("vm"), server, false},
      {"a user whom the server does not know", make_wrong("nobody"), server, false},
      {"a server with certificates", Make("tls-creds-psk", "username=vm"), Server(), false},
      {"a client with certificates", Client(), server, false},
  };
  for (const auto& c : cases) {
    auto [ours, theirs] =
        Shake({.credentials = c.client, .hostname = "host.example"}, {.credentials = c.server});
    EXPECT_EQ(ours.has_value(), c.good) << c.what << ": " << ErrorOf(ours);
    EXPECT_EQ(theirs.has_value(), c.good) << c.what << ": " << ErrorOf(theirs);
  }
}

TEST_F(TlsChannelTest, APeerWithoutTlsIsToldFromOneThatIsNotTrusted) {
  for (const bool server : {false, true}) {
    auto [near, far] = MakePair();
    ASSERT_TRUE(far->WriteAll(std::as_bytes(std::span("plain text, and quite some of it", 32))));
    const Outcome outcome =
        WrapTls(std::move(near), {server ? Server() : Client(), "host.example"});
    ASSERT_FALSE(outcome);
    EXPECT_EQ(outcome.error().message(), "client: the other side does not speak TLS 1.3");
    EXPECT_EQ(outcome.error().code(), Errc::kMalformed);
  }
}

TEST_F(TlsChannelTest, AHandshakeThatStallsOrIsCancelledEnds) {
  auto [near, far] = MakePair();
  Outcome outcome = WrapTls(std::move(near), {.credentials = Client(),
                                              .hostname = "host.example",
                                              .timeout = std::chrono::milliseconds(30)});
  EXPECT_EQ(ErrorOf(outcome),
            "during the TLS handshake: client: the other side has sent nothing for 0.03 seconds");
  auto [left, right] = MakePair();
  std::stop_source cancel;
  auto waiting = std::async(std::launch::async, [&, left = std::move(left)]() mutable {
    return WrapTls(std::move(left), {Client(), "host.example"}, cancel.get_token());
  });
  EXPECT_EQ(right->WaitReadable(std::chrono::seconds(120)), true);
  cancel.request_stop();
  const Outcome cancelled = waiting.get();
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().os_errno(), ECANCELED);
}

TEST_F(TlsChannelTest, AConnectionTakesTheNameItGoesToOrTheOneThatIsSet) {
  authority_.Sign(folder_, "server", "IP:127.0.0.1");
  auto listener = Listener::Listen(TcpAddress{"127.0.0.1", "0"});
  ASSERT_TRUE(listener);
  const auto server = Server();
  for (const char* name : {"", "evil.example"}) {
    auto theirs = std::async(std::launch::async, [&] {
      Outcome channel = (*listener)->Accept();
      while (channel && *channel == nullptr) channel = (*listener)->Accept();
      return WrapTls(*std::move(channel), {.credentials = server});
    });
    ConnectOptions options;
    options.tls = {.credentials = Client(), .hostname = name};
    const Outcome ours = Connect((*listener)->address(), options);
    EXPECT_EQ(ours.has_value(), *name == '\0') << ErrorOf(ours);
    (void)theirs.get();
  }
}

TEST_F(TlsChannelTest, CredentialsThatCannotWorkAreRefusedWhenTheyAreMade) {
  const TestFolder folder;
  const auto error_of = [&folder](const std::string& words) {
    const auto made = MakeCredentials(words + ",dir=" + folder.path());
    return made ? std::string("no error") : made.error().message();
  };
  const std::string server = "tls-creds-x509,id=t,endpoint=server";
  EXPECT_EQ(error_of(server), "Unable to access credentials " + folder / "ca-cert.pem" +
                                  ": No such file or directory");
  authority_.Publish(folder);
  EXPECT_EQ(error_of(server), "Unable to access credentials " + folder / "server-cert.pem" +
                                  ": No such file or directory");
  EXPECT_EQ(error_of("tls-creds-x509,id=t"), "no error") << "a client may have no certificate";
  authority_.Sign(folder, "server", "", -1);
  EXPECT_EQ(error_of(server), "object 't': nobody would accept '" + folder / "server-cert.pem" +
                                  "': certificate has expired");
  EXPECT_EQ(error_of(server + ",sanity-check=off"), "no error");
  TestAuthority("other").Sign(folder, "server", "");
  EXPECT_THAT(error_of(server), HasSubstr("nobody would accept"));
  folder.Write("server-key.pem", "no key");
  EXPECT_THAT(error_of(server), HasSubstr("object 't': cannot use '" + folder / "server-key.pem"));
  folder.Write("ca-cert.pem", "nothing");
  EXPECT_THAT(error_of(server), HasSubstr("object 't': cannot use '" + folder / "ca-cert.pem"));

  const std::string keys = "tls-creds-psk,id=t,endpoint=server";
  EXPECT_EQ(error_of(keys),
            "Unable to access credentials " + folder / "keys.psk" + ": No such file or directory");
  const struct {
    const char* text;
    const char* error;  // after the file's name
  } cases[] = {
      {"vm\n", ": line 1 has no user and key"},
      {"\n# x\nvm:12\n", ": line 3 has no user and key"},
      {":00112233445566778899aabbccddeeff\n", ": line 1 has no user and key"},
      {"vm:00112233445566778899aabbccddeefg\n", ": line 1 has no user and key"},
  };
  for (const auto& c : cases) {
    folder.Write("keys.psk", c.text);
    EXPECT_EQ(error_of(keys), "'" + folder / "keys.psk" + "'" + c.error) << c.text;
  }
  folder.Write("keys.psk", "");
  EXPECT_EQ(error_of(keys), "there is no key in '" + folder / "keys.psk" + "'");
  folder.Write("keys.psk", "vm:00112233445566778899aabbccddeeff");
  EXPECT_EQ(error_of("tls-creds-psk,id=t"),
            "Username qemu not found in '" + folder / "keys.psk" + "'");
}

TEST(TlsCredentialsTest, AreFoundByIdAndSide) {
  const TestFolder folder;
  folder.Write("keys.psk", "qemu:00112233445566778899aabbccddeeff\n");
  object::ObjectStore store;
  ASSERT_TRUE(store.AddFromOption("tls-creds-psk,id=c,dir=" + folder.path()));
  ASSERT_TRUE(store.AddFromOption("rng-builtin,id=r"));
  const auto error_of = [&store](const char* id, object::TlsEndpoint endpoint) {
    const auto found = FindTlsCredentials(store, id, endpoint);
    return found ? std::string("no error") : found.error().message();
  };
  EXPECT_EQ(error_of("c", object::TlsEndpoint::kClient), "no error");
  EXPECT_EQ(error_of("c", object::TlsEndpoint::kServer),
            "Expected TLS credentials for a server endpoint");
  EXPECT_EQ(error_of("r", object::TlsEndpoint::kClient),
            "Object with id 'r' is not TLS credentials");
  EXPECT_EQ(error_of("n", object::TlsEndpoint::kClient), "No TLS credentials with id 'n'");
}

}  // namespace
}  // namespace holdfast::migration
