// SPDX-License-Identifier: Apache-2.0
#include "migration/address.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace holdfast::migration {
namespace {

using Json = nlohmann::json;

TEST(ParseAddressTest, ReadsWhatQemuDoes) {
  const struct {
    const char* uri;
    Address address;
    const char* shown = nullptr;  // null: as it was written
  } cases[] = {
      {"tcp:192.0.2.1:4444", TcpAddress{"192.0.2.1", "4444"}},
      {"tcp::4444", TcpAddress{"", "4444"}},
      {"tcp:[::1]:4444", TcpAddress{"::1", "4444"}},
      {"tcp:host.example:0", TcpAddress{"host.example", "0"}},
      {"unix:/run/vm,1.sock", UnixAddress{"/run/vm,1.sock"}},
      {"fd:3", FdAddress{"3"}},
      {"fd:name", FdAddress{"name"}},
      {"exec:gzip -c > a:b", ExecAddress{{"/bin/sh", "-c", "gzip -c > a:b"}}},
      {"file:/vm/state", FileAddress{"/vm/state", 0}},
      {"file:a,offset=0x1000", FileAddress{"a", 4096}, "file:a,offset=4096"},
      {"file:a,offset=1M", FileAddress{"a", 1 << 20}, "file:a,offset=1048576"},
  };
  for (const auto& c : cases) {
    const auto address = ParseAddress(c.uri);
    ASSERT_TRUE(address) << c.uri << ": " << address.error().message();
    EXPECT_EQ(*address, c.address) << c.uri;
    EXPECT_EQ(Describe(*address), c.shown == nullptr ? c.uri : c.shown);
  }
}

TEST(ParseAddressTest, SaysWhatIsWrong) {
  const struct {
    std::string uri;
    const char* error;
  } cases[] = {
      {"bad:1", "unknown migration protocol: bad:1"},
      {"", "unknown migration protocol: "},
      {"tcp", "unknown migration protocol: tcp"},
      {"rdma:host:1", "unknown migration protocol: rdma:host:1"},
      {"tcp:4444", "error parsing address '4444'"},
      {"tcp:host:", "error parsing address 'host:'"},
      {"tcp:::1:4444", "error parsing address '::1:4444'"},
      {"tcp:a:1,ipv4=on", "error parsing address 'a:1,ipv4=on'"},
      {"unix:", "the path in 'unix:' is empty"},
      {"fd:", "the name in 'fd:' is empty"},
      {"exec:", "the command in 'exec:' is empty"},
      {"file:", "the path in 'file:' is empty"},
      {"file:,offset=1", "the path in 'file:,offset=1' is empty"},
      {"file:a,offset=x", "file URI has bad offset x"},
      {"file:a,offset=-1", "file URI has bad offset -1"},
      {"file:a,offset=0xffffffffffffffff", "file URI has bad offset 18446744073709551615"},
      {std::string("unix:a\0b", 8), "a migration address cannot have a zero byte in it"},
  };
  for (const auto& c : cases) {
    const auto address = ParseAddress(c.uri);
    ASSERT_FALSE(address) << c.uri;
    EXPECT_EQ(address.error().message(), c.error);
  }
}

TEST(ChannelAddressesTest, ReadsWhatQmpSays) {
  const struct {
    const char* address;
    Address wanted;
  } cases[] = {
      {R"({"transport": "socket", "type": "inet", "host": "::1", "port": "44"})",
       TcpAddress{"::1", "44"}},
      {R"({"transport": "socket", "type": "unix", "path": "/a"})", UnixAddress{"/a"}},
      {R"({"transport": "socket", "type": "fd", "str": "mig"})", FdAddress{"mig"}},
      {R"({"transport": "exec", "args": ["/bin/cat", "-u"]})", ExecAddress{{"/bin/cat", "-u"}}},
      {R"({"transport": "file", "filename": "/f", "offset": 512})", FileAddress{"/f", 512}},
  };
  for (const auto& c : cases) {
    const Json addr = Json::parse(c.address);
    const Json cpr = {{"transport", "socket"}, {"type", "unix"}, {"path", "/cpr"}};
    const auto channels = ChannelsFromJson(
        {{{"channel-type", "main"}, {"addr", addr}}, {{"channel-type", "cpr"}, {"addr", cpr}}});
    ASSERT_TRUE(channels) << channels.error().message();
    EXPECT_EQ(channels->main, c.wanted) << c.address;
    EXPECT_EQ(channels->cpr, Address(UnixAddress{"/cpr"}));
  }
}

TEST(ChannelAddressesTest, RefusesWhatIsNone) {
  const struct {
    const char* channels;
    const char* error;
  } cases[] = {
      {R"(1)", "Invalid parameter type for 'channels', expected: array"},
      {R"([])", "Channel list has no main entry"},
      {R"([1])", "Parameter 'addr' is missing"},
      {R"([{"channel-type": "main"}])", "Parameter 'addr' is missing"},
      {R"([{"channel-type": "main", "addr": 1}])",
       "Invalid parameter type for 'addr', expected: object"},
      {R"([{"channel-type": "data", "addr": {}}])",
       "Parameter 'channel-type' does not accept value 'data'"},
      {R"([{"channel-type": "main", "addr": {"transport": "rdma"}}])",
       "Parameter 'transport' does not accept value 'rdma'"},
      {R"([{"channel-type": "main", "addr": {"transport": "socket", "type": "vsock"}}])",
       "Parameter 'type' does not accept value 'vsock'"},
      {R"([{"channel-type": "main", "addr": {"transport": "socket", "type": "inet",
            "host": "a", "port": 1}}])",
       "Invalid parameter type for 'port', expected: string"},
      {R"([{"channel-type": "main", "addr": {"transport": "socket", "type": "inet",
            "host": "a", "port": "1", "to": 9}}])",
       "Parameter 'to' of a migration address is not available"},
      {R"([{"channel-type": "main", "addr": {"transport": "exec", "args": []}}])",
       "the command in 'exec:' is empty"},
      {R"([{"channel-type": "main", "addr": {"transport": "exec", "args": [1]}}])",
       "Invalid parameter type for 'args', expected: array of strings"},
      {R"([{"channel-type": "main", "addr": {"transport": "file", "filename": "a"}}])",
       "Parameter 'offset' expects uint64"},
      {R"([{"channel-type": "main", "addr": {"transport": "socket", "type": "unix", "path": "a"}},
           {"channel-type": "main", "addr": {"transport": "socket", "type": "unix", "path": "b"}}])",
       "Channel list has more than one main entry"},
  };
  for (const auto& c : cases) {
    const auto channels = ChannelsFromJson(Json::parse(c.channels));
    ASSERT_FALSE(channels) << c.channels;
    EXPECT_EQ(channels.error().message(), c.error) << c.channels;
  }
}

}  // namespace
}  // namespace holdfast::migration
