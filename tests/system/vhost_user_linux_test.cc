// SPDX-License-Identifier: Apache-2.0
// Devices that other processes serve, in a Linux guest whose RAM is guest_memfd.
#include <arpa/inet.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <span>

#include "devices/net/net_features.h"
#include "devices/vhost_user/protocol.h"
#include "devices/vhost_user/test_backend.h"
#include "devices/vhost_user/test_net_backend.h"
#include "system/device_guest.h"

namespace holdfast::test {
namespace {

using devices::vhost_user::TestBackend;

constexpr std::size_t kHalf = 2 * kMiB;

// Copies the first half of /dev/vda to the second, a piece at a time.
constexpr std::string_view kCopy =
    "dd if=/dev/vda of=/dev/vda bs=16k count=128 seek=128 iflag=direct oflag=direct "
    "conv=notrunc,fsync && echo hf: copied=yes\n";

class LinuxVhostUser : public LinuxDeviceTest {
 protected:
  void SetUp() override {
    LinuxDeviceTest::SetUp();
    for (const char* const program :
         {devices::vhost_user::kStorageDaemon, devices::vhost_user::kVirtiofsd}) {
      if (!std::filesystem::exists(program)) GTEST_SKIP() << program << " is not installed";
    }
  }
  std::string HalfDisk(std::string_view name) const {
    return MakeFile(name, Pattern(kHalf) + std::string(kHalf, '\x5a'));
  }
  static bool IsCopied(const std::string& path) {
    const std::string all = ReadAll(path);
    const std::string pattern = Pattern(kHalf);
    return all.size() == 2 * kHalf && all.compare(0, kHalf, pattern) == 0 &&
           all.compare(kHalf, kHalf, pattern) == 0;
  }
};

TEST_F(LinuxVhostUser, Qcow2IsServedByADaemonAlsoInTheSandbox) {
  const std::string raw = HalfDisk("raw");
  const std::string image = Path("disk.qcow2");
  ASSERT_EQ(std::system(fmt::format("qemu-img convert -O qcow2 {} {}", raw, image).c_str()), 0);
  MonitorProcess monitor(
      Guest(kCopy) +
      Arguments{"-drive", fmt::format("file={},format=qcow2,if=virtio", image), "-sandbox", "on"});
  EXPECT_ENDS(monitor, 0);
  ASSERT_EQ(ValueOf(monitor, "copied"), "yes") << monitor.Describe();
  EXPECT_EQ(std::system(fmt::format("qemu-img check {}", image).c_str()), 0);
  ASSERT_EQ(std::system(fmt::format("qemu-img convert -O raw {} {}", image, raw).c_str()), 0);
  EXPECT_TRUE(IsCopied(raw));
}

TEST_F(LinuxVhostUser, ADiskWhoseBackEndIsKilledUnderLoadLosesNothing) {
  for (const bool bound : {false, true}) {
    SCOPED_TRACE(bound);
    const std::string path = HalfDisk("disk");
    const std::string socket = Path("disk.sock");
    TestBackend daemon(devices::vhost_user::StorageDaemonCommand(path, socket), socket);
    ASSERT_TRUE(daemon.Start());
    MonitorProcess monitor(
        Guest(fmt::format("echo hf: up=yes\n{}", kCopy), {.bound = bound}) +
            Arguments{"-chardev", fmt::format("socket,id=c0,path={},reconnect-ms=50", socket),
                      "-device", "vhost-user-blk-pci,chardev=c0"},
        {.terminal = true});
    ASSERT_TEXT(monitor, "hf: up=yes");
    monitor.Send(CtrlA('c'));
    ASSERT_TEXT(monitor, kPrompt);
    // The machine stands and goes on before, while and after the back end is away.
    for (int i = 0; i < 3; ++i) {
      monitor.ReadFor(0.2);
      RunCommand(monitor, "stop");
      RunCommand(monitor, "cont");
      daemon.Kill();
      RunCommand(monitor, "stop");
      ASSERT_TRUE(daemon.Start());
      RunCommand(monitor, "cont");
    }
    monitor.Send(CtrlA('c'));
    EXPECT_ENDS(monitor, 0);
    EXPECT_EQ(ValueOf(monitor, "copied"), "yes") << monitor.Describe();
    EXPECT_TRUE(IsCopied(path));
  }
}

TEST_F(LinuxVhostUser, AFolderOfTheHostIsMounted) {
  const std::string folder = Path("share");
  std::filesystem::create_directory(folder);
  std::ofstream(folder + "/from-host") << "hello guest\n";
  const std::string socket = Path("fs.sock");
  TestBackend daemon({devices::vhost_user::kVirtiofsd, "--socket-path=" + socket, "-o",
                      "source=" + folder, "-o", "sandbox=chroot"},
                     socket);
  ASSERT_TRUE(daemon.Start());
  constexpr std::string_view kScript =
      "mkdir /m && mount -t virtiofs folder /m && echo hf: read=$(cat /m/from-host)\n"
      "dd if=/dev/zero of=/m/from-guest bs=64k count=16 && sync && umount /m && "
      "echo hf: wrote=yes\n";
  MonitorProcess monitor(Guest(kScript) + Arguments{"-chardev", "socket,id=c0,path=" + socket,
                                                    "-device",
                                                    "vhost-user-fs-pci,chardev=c0,tag=folder"});
  EXPECT_ENDS(monitor, 0);
  EXPECT_EQ(ValueOf(monitor, "read"), "hello guest") << monitor.Describe();
  EXPECT_EQ(ValueOf(monitor, "wrote"), "yes");
  EXPECT_EQ(ReadAll(folder + "/from-guest"), std::string(kMiB, '\0'));
}

// ---- Network ----

using devices::vhost_user::TestNetBackend;
using Frame = TestNetBackend::Frame;

// The Internet checksum (RFC 1071), as it lies in memory.
std::uint16_t Checksum(std::span<const std::byte> bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); i += 2) {
    sum += std::to_integer<std::uint32_t>(bytes[i]) << 8;
    if (i + 1 < bytes.size()) sum += std::to_integer<std::uint32_t>(bytes[i + 1]);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return htons(static_cast<std::uint16_t>(~sum));
}

// A host that answers ARP (RFC 826) and pings (RFC 792), whatever address they are for.
std::optional<Frame> AnswerAsHost(Frame frame) {
  constexpr std::size_t kEthernet = 14;
  constexpr std::array<std::byte, 6> kMac = {std::byte{2}, {}, {}, {}, {}, std::byte{1}};
  const auto swap = [&](std::size_t a, std::size_t b, std::size_t size) {
    std::swap_ranges(frame.begin() + static_cast<std::ptrdiff_t>(a),
                     frame.begin() + static_cast<std::ptrdiff_t>(a + size),
                     frame.begin() + static_cast<std::ptrdiff_t>(b));
  };
  const auto put_mac = [&](std::size_t at) {
    std::ranges::copy(kMac, frame.begin() + static_cast<std::ptrdiff_t>(at));
  };
  if (frame.size() < kEthernet + 28 || frame[12] != std::byte{0x08}) return std::nullopt;
  swap(0, 6, 6);
  put_mac(6);
  if (frame[13] == std::byte{0x06}) {
    if (frame[kEthernet + 7] != std::byte{1}) return std::nullopt;  // no request
    frame[kEthernet + 7] = std::byte{2};
    swap(kEthernet + 8, kEthernet + 18, 10);  // address and IP of both
    put_mac(kEthernet + 8);
    return frame;
  }
  const std::size_t icmp = kEthernet + 20;
  const bool is_ping = frame[13] == std::byte{0} && frame[kEthernet] == std::byte{0x45} &&
                       frame[kEthernet + 9] == std::byte{1} && frame[icmp] == std::byte{8};
  if (!is_ping) return std::nullopt;
  swap(kEthernet + 12, kEthernet + 16, 4);
  frame[icmp] = frame[icmp + 2] = frame[icmp + 3] = std::byte{0};
  const std::size_t length = (std::to_integer<std::size_t>(frame[kEthernet + 2]) << 8) +
                             std::to_integer<std::size_t>(frame[kEthernet + 3]);
  if (length < 28 || kEthernet + length > frame.size()) return std::nullopt;
  const std::uint16_t sum = Checksum(std::span(frame).subspan(icmp, length - 20));
  std::memcpy(&frame[icmp + 2], &sum, sizeof sum);
  return frame;
}

class LinuxVhostUserNet : public LinuxDeviceTest {};

// Two pairs of queues, stopped and started with the machine; the back end dies and comes back, and
// the guest sees a cable that is out meanwhile.
TEST_F(LinuxVhostUserNet, AVhostUserNetworkStopsWithTheMachineAndComesBackWithItsBackEnd) {
  using namespace devices::vhost_user;
  using devices::net::NetFeature;
  constexpr std::string_view kScript =
      "c=/sys/class/net/eth0/carrier; h=10.88.0.1\n"
      "ip addr add 10.88.0.2/24 dev eth0; ip link set eth0 up\n"
      "p() { until ping -q -A -c 100 -s 1400 $h | grep ' 0% packet loss'; do sleep 1; done; "
      "echo hf: $1=yes; }\n"
      "p first\n"
      "while [ $(cat $c) = 1 ]; do ping -q -c 1 -W 1 $h; done >/dev/null; echo hf: down=yes\n"
      "until [ $(cat $c) = 1 ]; do sleep 1; done; p second\n";
  for (const bool bound : {false, true}) {
    SCOPED_TRACE(bound);
    const std::string socket = Path("net.sock");
    TestNetBackend network(
        socket, {.features = NetFeature::kNetMergeableBuffers | NetFeature::kNetMultiQueue |
                             NetFeature::kNetMtu,
                 .protocol = kProtocolMq | kProtocolReplyAck | kProtocolNetMtu | kProtocolLogShmfd,
                 .pairs = 2,
                 .answer = AnswerAsHost});
    MonitorProcess monitor(
        Guest(kScript, {.bound = bound, .cpus = 2}) +
            Arguments{"-chardev", fmt::format("socket,id=c0,path={},reconnect-ms=50", socket),
                      "-netdev", "vhost-user,id=n0,chardev=c0,queues=2", "-device",
                      "virtio-net-pci,netdev=n0,mq=on,host_mtu=1450", "-sandbox", "on"},
        {.terminal = true});
    ASSERT_TEXT(monitor, "hf: first=yes");
    EXPECT_EQ(network.seen().mtu, 1450U);
    EXPECT_EQ(network.seen().served.size(), 4U);
    monitor.Send(CtrlA('c'));
    ASSERT_TEXT(monitor, kPrompt);
    RunCommand(monitor, "stop");
    EXPECT_TRUE(network.seen().served.empty());
    const std::size_t frames = network.seen().frames.size();
    monitor.ReadFor(0.3);
    EXPECT_EQ(network.seen().frames.size(), frames);
    RunCommand(monitor, "cont");
    EXPECT_TRUE(network.WaitFor(
        [&](const TestNetBackend::Seen& seen) { return seen.frames.size() > frames + 2; }));
    monitor.Send(CtrlA('c'));
    network.Kill();
    ASSERT_TEXT(monitor, "hf: down=yes");
    network.Revive();
    EXPECT_ENDS(monitor, 0);
    EXPECT_EQ(ValueOf(monitor, "second"), "yes") << monitor.Describe();
  }
}

}  // namespace
}  // namespace holdfast::test
