// SPDX-License-Identifier: Apache-2.0
// The network in a Linux guest: user networking with DHCP, out to a server here, in through a
// forwarded port.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/unique_fd.h>
#include <holdfast/units.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "system/device_guest.h"

namespace holdfast::test {
namespace {

class LinuxNet : public LinuxDeviceTest {};

// Gives an interface of this host an address of a /24 and brings it up.
bool SetAddress(const std::string& interface, const char* address) {
  const UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::memcpy(request.ifr_name, interface.data(), std::min<std::size_t>(interface.size(), 15));
  sockaddr_in in{};
  in.sin_family = AF_INET;
  const auto set = [&](unsigned long what, const char* text) {
    ::inet_pton(AF_INET, text, &in.sin_addr);
    std::memcpy(&request.ifr_addr, &in, sizeof in);
    return ::ioctl(socket.get(), what, &request) == 0;
  };
  if (!set(SIOCSIFADDR, address) || !set(SIOCSIFNETMASK, "255.255.255.0")) return false;
  request.ifr_flags = IFF_UP;
  return ::ioctl(socket.get(), SIOCSIFFLAGS, &request) == 0;
}

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
      "timeout 5 wget -q -O - http://10.0.2.2:{}/ && echo hf: reached=yes\n"
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

// Over a tap, through this process and through the kernel; with two queues, so that one of them
// starts late; the link goes and comes back.
TEST_F(LinuxNet, ATapLeadsToTheHostAlsoWhereTheKernelCarriesTheFrames) {
  if (::access("/dev/net/tun", R_OK | W_OK) != 0) GTEST_SKIP() << "no /dev/net/tun here";
  if (::access("/dev/vhost-net", R_OK | W_OK) != 0) GTEST_SKIP() << "no /dev/vhost-net here";
  const std::string body = Pattern(kMiB);
  const HttpServer server(body, true);
  constexpr std::string_view kFetch =
      "until timeout 10 wget -q -O /tmp/body http://10.77.0.1:{0}/body; do sleep 1; done\n"
      "echo hf: {1}=$(wc -c </tmp/body)\n";
  const std::string script =
      fmt::format("ip addr add 10.77.0.2/24 dev eth0; ip link set eth0 up; echo hf: up=yes\n") +
      fmt::format(fmt::runtime(kFetch), server.port(), "first") +
      "until [ $(cat /sys/class/net/eth0/carrier) = 0 ]; do sleep 1; done; sleep 2; echo hf: "
      "down=yes\n"
      "until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do sleep 1; done\n" +
      fmt::format(fmt::runtime(kFetch), server.port(), "second");
  for (const char* vhost : {"off", "on"}) {
    SCOPED_TRACE(vhost);
    const std::string interface = fmt::format("hf{}", ::getpid() % 1000000);
    MonitorProcess monitor(
        Guest(script, {.cpus = 2}) +
            Arguments{"-netdev",
                      fmt::format("tap,id=n0,ifname={},script=no,downscript=no,queues=2,vhost={}",
                                  interface, vhost),
                      "-device", "virtio-net-pci,netdev=n0,mq=on,id=nic0", "-sandbox", "on"},
        {.terminal = true});
    ASSERT_TEXT(monitor, "hf: up=yes");
    ASSERT_TRUE(SetAddress(interface, "10.77.0.1"));
    // To the line's end: the monitor's words share the stream.
    ASSERT_TEXT(monitor, fmt::format("hf: first={}\r", body.size()));
    monitor.Send(CtrlA('c'));
    ASSERT_TEXT(monitor, kPrompt);
    RunCommand(monitor, "set_link nic0 off");
    monitor.Send(CtrlA('c'));
    ASSERT_TEXT(monitor, "hf: down=yes");
    monitor.Send(CtrlA('c'));
    ASSERT_TEXT(monitor, kPrompt);
    RunCommand(monitor, "set_link nic0 on");
    // Whoever carries the frames stops with the machine, and goes on with it.
    for (int i = 0; i < 3; ++i) {
      RunCommand(monitor, "stop");
      RunCommand(monitor, "cont");
    }
    EXPECT_ENDS(monitor, 0);
    EXPECT_EQ(ValueOf(monitor, "second"), fmt::format("{}", body.size())) << monitor.Describe();
  }
}

}  // namespace
}  // namespace holdfast::test
