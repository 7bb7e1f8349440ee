// SPDX-License-Identifier: Apache-2.0
// The network in a Linux guest: user networking with DHCP, out to a server here, in through a
// forwarded port.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>

#include "system/device_guest.h"

namespace holdfast::test {
namespace {

class LinuxNet : public LinuxDeviceTest {};

TEST_F(LinuxNet, GetsAnAddressFetchesAFileAndGivesItBackThroughAForwardedPort) {
  const std::string body = Pattern(kMiB);
  const HttpServer server(body);
  const std::uint16_t forwarded = FreePort();
  const std::string script = fmt::format(
      "hf-dhcp eth0\n"
      "echo hf: mac=$(cat /sys/class/net/eth0/address)\n"
      "wget -q -O /tmp/body http://10.0.2.2:{}/body && echo hf: fetched=$(wc -c </tmp/body)\n"
      "echo hf: listening; nc -l -p 8080 </tmp/body\n",
      server.port());
  MonitorProcess monitor(
      Guest(script) +
      Arguments{"-nic", fmt::format("user,model=virtio-net-pci,mac=52:54:00:12:34:99,"
                                    "hostfwd=tcp:127.0.0.1:{}-:8080",
                                    forwarded)});
  ASSERT_TEXT(monitor, "hf: listening");
  EXPECT_EQ(ValueOf(monitor, "dhcp"), "10.0.2.15/24 router=10.0.2.2 dns=10.0.2.3");
  EXPECT_EQ(ValueOf(monitor, "mac"), "52:54:00:12:34:99");
  EXPECT_EQ(ValueOf(monitor, "fetched"), fmt::format("{}", body.size())) << monitor.Describe();
  EXPECT_TRUE(AskPort(forwarded, "") == body) << "what came back is not what the guest fetched";
  EXPECT_ENDS(monitor, 0);
}

TEST_F(LinuxNet, ARestrictedNetworkLeadsNowhere) {
  const HttpServer server("secret");
  const std::string script = fmt::format(
      "hf-dhcp eth0\n"
      "wget -T 5 -q -O - http://10.0.2.2:{}/ && echo hf: reached=yes\n"
      "echo hf: tried=yes\n",
      server.port());
  MonitorProcess monitor(Guest(script) + Arguments{"-netdev",
                                                   "user,id=n0,restrict=on,net=10.9.0.0/24",
                                                   "-device", "virtio-net-pci,netdev=n0"});
  EXPECT_ENDS(monitor, 0);
  EXPECT_THAT(ValueOf(monitor, "dhcp"), ::testing::StartsWith("10.9.0.15/24"));
  EXPECT_EQ(ValueOf(monitor, "tried"), "yes");
  EXPECT_EQ(ValueOf(monitor, "reached"), "") << monitor.Describe();
}

}  // namespace
}  // namespace holdfast::test
