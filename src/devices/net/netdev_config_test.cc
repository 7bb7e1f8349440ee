// SPDX-License-Identifier: Apache-2.0
#include "devices/net/netdev_config.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

namespace holdfast::devices::net {
namespace {

Result<NetdevConfig> Parse(std::string_view text) {
  HF_TRY(const object::KeyValues values, object::ParseKeyValues(text, "type"));
  return ParseNetdev(values);
}

std::string Text(in_addr address) {
  char text[INET_ADDRSTRLEN] = {};
  return ::inet_ntop(AF_INET, &address, text, sizeof text);
}

TEST(NetdevConfig, UserNetworksHaveQemusAddresses) {
  const struct {
    const char* options;
    const char* network;
    const char* mask;
    const char* host;
    const char* dns;
    const char* dhcp;
  } kCases[] = {
      {"", "10.0.2.0", "255.255.255.0", "10.0.2.2", "10.0.2.3", "10.0.2.15"},
      {",net=192.168.7.0/24", "192.168.7.0", "255.255.255.0", "192.168.7.2", "192.168.7.3",
       "192.168.7.15"},
      {",net=192.168.7.9/255.255.255.0", "192.168.7.0", "255.255.255.0", "192.168.7.2",
       "192.168.7.3", "192.168.7.15"},
      {",net=172.16.0.0", "172.16.0.0", "255.240.0.0", "172.16.2.2", "172.16.2.3", "172.16.2.15"},
      {",net=192.168.0.0", "192.168.0.0", "255.255.0.0", "192.168.2.2", "192.168.2.3",
       "192.168.2.15"},
      {",net=10.0.0.0", "10.0.0.0", "255.0.0.0", "10.0.2.2", "10.0.2.3", "10.0.2.15"},
      {",host=10.0.2.9,dns=10.0.2.8,dhcpstart=10.0.2.100", "10.0.2.0", "255.255.255.0", "10.0.2.9",
       "10.0.2.8", "10.0.2.100"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.options);
    const auto config = Parse(std::string("user,id=n") + c.options);
    ASSERT_TRUE(config) << config.error().ToString();
    const auto& user = std::get<UserConfig>(config->what);
    EXPECT_EQ(Text(user.network), c.network);
    EXPECT_EQ(Text(user.mask), c.mask);
    EXPECT_EQ(Text(user.host), c.host);
    EXPECT_EQ(Text(user.dns), c.dns);
    EXPECT_EQ(Text(user.dhcp_start), c.dhcp);
  }
}

TEST(NetdevConfig, OneAddressFamilyTurnedOnTurnsTheOtherOff) {
  const struct {
    const char* options;
    bool ipv4, ipv6;
  } kCases[] = {{"", true, true},           {",ipv4=on", true, false},  {",ipv6=on", false, true},
                {",ipv4=off", false, true}, {",ipv6=off", true, false}, {",ipv4,ipv6", true, true}};
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.options);
    const auto config = Parse(std::string("user,id=n") + c.options);
    ASSERT_TRUE(config);
    EXPECT_EQ(std::get<UserConfig>(config->what).ipv4, c.ipv4);
    EXPECT_EQ(std::get<UserConfig>(config->what).ipv6, c.ipv6);
  }
}

TEST(NetdevConfig, HostForwardsAreRead) {
  const auto config = Parse(
      "user,id=n,hostfwd=tcp::2222-:22,hostfwd=udp:127.0.0.1:53-10.0.2.16:5353,hostfwd=::80-:8080");
  ASSERT_TRUE(config);
  const auto& rules = std::get<UserConfig>(config->what).forwards;
  ASSERT_EQ(rules.size(), 3U);
  EXPECT_FALSE(rules[0].udp);
  EXPECT_EQ(Text(rules[0].host_address), "0.0.0.0");
  EXPECT_EQ(rules[0].host_port, 2222);
  EXPECT_EQ(rules[0].guest_port, 22);
  EXPECT_TRUE(rules[1].udp);
  EXPECT_EQ(Text(rules[1].host_address), "127.0.0.1");
  EXPECT_EQ(Text(rules[1].guest_address), "10.0.2.16");
  EXPECT_EQ(rules[1].guest_port, 5353);
  EXPECT_FALSE(rules[2].udp);
}

TEST(NetdevConfig, SocketsAreReadInAllTheirWords) {
  const auto stream = Parse("stream,id=n,server=on,addr.type=unix,addr.path=/run/x");
  ASSERT_TRUE(stream);
  EXPECT_TRUE(std::get<StreamConfig>(stream->what).server);
  EXPECT_EQ(std::get<StreamConfig>(stream->what).address.socket.path, "/run/x");
  const auto client = Parse("stream,id=n,addr.type=inet,addr.host=h,addr.port=7,reconnect=2");
  ASSERT_TRUE(client);
  EXPECT_EQ(std::get<StreamConfig>(client->what).reconnect.count(), 2000);
  const auto listen = Parse("socket,id=n,listen=:1234");
  ASSERT_TRUE(listen);
  EXPECT_TRUE(std::get<StreamConfig>(listen->what).server);
  EXPECT_EQ(std::get<StreamConfig>(listen->what).address.socket.host, "0.0.0.0");
  const auto udp = Parse("socket,id=n,udp=h:1,localaddr=:2");
  ASSERT_TRUE(udp);
  EXPECT_EQ(std::get<DgramConfig>(udp->what).remote->socket.port, "1");
  const auto dgram =
      Parse("dgram,id=n,local.type=unix,local.path=/a,remote.type=unix,remote.path=/b");
  ASSERT_TRUE(dgram);
  EXPECT_EQ(std::get<DgramConfig>(dgram->what).local->socket.path, "/a");
}

TEST(NetdevConfig, TapsRunQemusScriptsUnlessToldNotTo) {
  const auto plain = Parse("tap,id=n,ifname=tap7");
  ASSERT_TRUE(plain);
  EXPECT_EQ(std::get<TapConfig>(plain->what).script, "/etc/qemu-ifup");
  EXPECT_TRUE(std::get<TapConfig>(plain->what).script_optional);
  const auto none = Parse("tap,id=n,script=no,downscript=no,queues=2");
  ASSERT_TRUE(none);
  EXPECT_EQ(std::get<TapConfig>(none->what).script, "");
  EXPECT_EQ(std::get<TapConfig>(none->what).queues, 2U);
  const auto fds = Parse("tap,id=n,fds=7:8");
  ASSERT_TRUE(fds);
  EXPECT_EQ(std::get<TapConfig>(fds->what).fds, (std::vector<int>{7, 8}));
}

TEST(NetdevConfig, VhostUserNamesItsChardev) {
  const auto config = Parse("vhost-user,id=n,chardev=c0,vhostforce=on,queues=4");
  ASSERT_TRUE(config) << config.error().ToString();
  const auto& other = std::get<VhostUserConfig>(config->what);
  EXPECT_EQ(other.chardev, "c0");
  EXPECT_EQ(other.queues, 4U);
}

TEST(NetdevConfig, EachMistakeIsNamed) {
  const struct {
    const char* text;
    const char* says;
  } kCases[] = {
      {"id=n", "'type' is missing"},
      {"user", "'id' is missing"},
      {"user,id=9", "'id' expects an identifier"},
      {"usr,id=n", "'usr'"},
      {"bridge,id=n", "'bridge'"},
      {"user,id=n,net=hello", "hello"},
      {"user,id=n,net=10.0.0.0/3", "'3' is no netmask"},
      {"user,id=n,net=10.0.0.0/255.0.255.0", "255.0.255.0"},
      {"user,id=n,host=10.9.9.9", "10.9.9.9"},
      {"user,id=n,dns=10.0.2.2", "DNS must be different from host"},
      {"user,id=n,dhcpstart=10.0.2.3", "DHCP must be different from host and DNS"},
      {"user,id=n,ipv4=off,net=10.0.2.0/24", "IPv4 disabled"},
      {"user,id=n,ipv6=off,ipv6-host=fec0::9", "IPv6 disabled"},
      {"user,id=n,ipv4=off,ipv6=off", "IPv4 and IPv6 disabled"},
      {"user,id=n,ipv6-net=fec0::/x", "fec0::/x"},
      {"user,id=n,ipv6-host=fec1::2", "fec1::2"},
      {"user,id=n,hostfwd=tcp::22", "(Bad host port separator)"},
      {"user,id=n,hostfwd=sctp::1-:2", "(Bad protocol name)"},
      {"user,id=n,hostfwd=tcp:x:1-:2", "(Bad host address)"},
      {"user,id=n,hostfwd=tcp::65536-:2", "(Bad host port)"},
      {"user,id=n,hostfwd=tcp::1-:0", "(Bad guest port)"},
      {"user,id=n,hostfwd=tcp::1-:", "(Bad guest port)"},
      {"user,id=n,guestfwd=tcp::1-x", "guestfwd"},
      {"tap,id=n,vhost=off,vhostfd=7", "vhost=on"},
      {"tap,id=n,queues=2,vhostfds=7", "vhostfds="},
      {"tap,id=n,queues=0", "queues"},
      {"tap,id=n,queues=99", "queues"},
      {"tap,id=n,fd=1", "'1'"},
      {"tap,id=n,fd=7,ifname=x", "ifname="},
      {"stream,id=n", "addr.type"},
      {"stream,id=n,addr.path=x", "addr.type"},
      {"stream,id=n,addr.type=unix", "addr.path"},
      {"stream,id=n,addr.type=unix,addr.path=x,server=on,reconnect=1", "reconnect"},
      {"stream,id=n,addr.type=unix,addr.path=x,reconnect-ms=1,reconnect=1", "reconnect"},
      {"vhost-user,id=n", "'chardev' is missing"},
      {"vhost-user,id=n,chardev=c,queues=0",
       "vhost-user number of queues must be in range [1, 1024]"},
      {"vhost-user,id=n,chardev=c,queues=1025", "in range [1, 1024]"},
      {"vhost-user,id=n,chardev=c,queues=-1", "queues"},
      {"vhost-user,id=n,chardev=c,path=x", "path"},
      {"dgram,id=n", "remote="},
      {"dgram,id=n,remote.type=unix,remote.path=x", "local="},
      {"socket,id=n", "exactly one"},
      {"socket,id=n,listen=:1,connect=:2", "exactly one"},
      {"socket,id=n,udp=h:1", "localaddr="},
      {"socket,id=n,connect=nothing", "'nothing'"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.text);
    const auto config = Parse(c.text);
    ASSERT_FALSE(config);
    EXPECT_NE(config.error().message().find(c.says), std::string::npos)
        << config.error().ToString();
    EXPECT_FALSE(config.error().hint().empty() &&
                 config.error().message().find("Invalid parameter") == std::string::npos)
        << config.error().ToString();
  }
}

}  // namespace
}  // namespace holdfast::devices::net
