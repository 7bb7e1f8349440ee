// SPDX-License-Identifier: Apache-2.0
// Devices that other processes serve, in a Linux guest whose RAM is guest_memfd.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "devices/vhost_user/test_backend.h"
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
    MonitorProcess monitor(Guest(fmt::format("echo hf: up=yes\n{}", kCopy), {.bound = bound}) +
                           Arguments{"-chardev",
                                     fmt::format("socket,id=c0,path={},reconnect-ms=50", socket),
                                     "-device", "vhost-user-blk-pci,chardev=c0"});
    ASSERT_TEXT(monitor, "hf: up=yes");
    for (int i = 0; i < 3; ++i) {
      monitor.ReadFor(0.2);
      daemon.Kill();
      ASSERT_TRUE(daemon.Start());
    }
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

}  // namespace
}  // namespace holdfast::test
