// SPDX-License-Identifier: Apache-2.0
// A whole Debian system (lab/debian) on a disk: systemd, serial console, network, SSH.
// HOLDFAST_DEBIAN names the disk, which is written to.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>

#include <cstdlib>
#include <ostream>
#include <vector>

#include "system/device_guest.h"

namespace holdfast::test {
namespace {

using ::testing::HasSubstr;
// Booting takes a minute or two in the lab.
constexpr double kBoot = 400;

class LinuxDebian : public LinuxDeviceTest {
 protected:
  void SetUp() override {
    LinuxDeviceTest::SetUp();
    if (IsSkipped()) return;
    if (std::getenv("HOLDFAST_DEBIAN") == nullptr)
      GTEST_SKIP() << "HOLDFAST_DEBIAN names no disk with a Debian system";
  }

  Arguments Debian(std::string_view root, std::uint16_t ssh) const {
    return Line({.ram = 512 * kMiB},
                fmt::format("hf.do=none hf.root={} systemd.show_status=0", root)) +
           Arguments{"-nic",
                     fmt::format("user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{}-:22", ssh),
                     "-device", "virtio-rng-pci"};
  }

  // Runs a command in the guest; "" and a failed test if that does not end well.
  static std::string Ssh(std::uint16_t port, const std::string& command) {
    MonitorProcess ssh(
        {"-p", fmt::format("{}", port), "-o", "ConnectTimeout=120", "root@127.0.0.1", command},
        {.program = "/usr/bin/ssh"});
    const auto exit = ssh.WaitForExit(kBoot);
    if (exit && exit->status == 0 && exit->signal == 0) return ssh.output();
    ADD_FAILURE() << "ssh: " << command << "\n" << ssh.Describe();
    return {};
  }

  // fsck finds nothing, without repairing anything.
  static void ExpectClean(const std::string& disk) {
    MonitorProcess fsck({"-fn", disk}, {.program = "/usr/sbin/e2fsck"});
    EXPECT_ENDS(fsck, 0);
  }

  // Boots, logs in, looks around, fetches from a server here, writes, powers off.
  void LiveADay(const Arguments& disk, std::string_view root) const {
    const std::string body = Pattern(kMiB);
    const HttpServer server(body);
    const std::uint16_t port = FreePort();
    MonitorProcess monitor(Debian(root, port) + disk);
    ASSERT_TRUE(monitor.WaitFor("login:", kBoot)) << monitor.Describe();
    const std::string told = Ssh(
        port, fmt::format("set -e; systemctl is-system-running --wait || systemctl --failed;"
                          "/usr/lib/apt/apt-helper download-file http://10.0.2.2:{}/x /var/tmp/x;"
                          "wc -c /var/tmp/x; sync; findmnt -no SOURCE /; nproc",
                          server.port()));
    EXPECT_THAT(told, HasSubstr("running"));
    EXPECT_THAT(told, HasSubstr(fmt::format("{} /var/tmp/x", body.size())));
    EXPECT_THAT(told, HasSubstr(root));
    // The connection may go before the command has answered.
    MonitorProcess off({"-p", fmt::format("{}", port), "root@127.0.0.1", "systemctl poweroff"},
                       {.program = "/usr/bin/ssh"});
    const auto exit = monitor.WaitForExit(kBoot);
    ASSERT_TRUE(exit) << monitor.Describe();
    EXPECT_EQ(exit->status, 0);
    EXPECT_EQ(monitor.errors(), "");
  }
};

// How the disk is attached; {} is its path.
struct Attachment {
  const char* name;
  std::vector<const char*> arguments;
  const char* root;
};

void PrintTo(const Attachment& attachment, std::ostream* out) {
  *out << attachment.name;
}

std::vector<Attachment> Attachments() {
  std::vector<Attachment> all = {{"blk",
                                  {"-drive", "file={},if=none,id=d0,format=raw,cache=none",
                                   "-device", "virtio-blk-pci,drive=d0"},
                                  "/dev/vda"}};
  if (LongForm()) {
    all.push_back(
        {"scsi",
         {"-device", "virtio-scsi-pci,id=scsi0", "-drive",
          "file={},if=none,id=d0,format=raw,cache=none", "-device", "scsi-hd,drive=d0,bus=scsi0.0"},
         "/dev/sda"});
  }
  return all;
}

class LinuxDebianOn : public LinuxDebian, public ::testing::WithParamInterface<Attachment> {};
INSTANTIATE_TEST_SUITE_P(, LinuxDebianOn, ::testing::ValuesIn(Attachments()),
                         ::testing::PrintToStringParamName());

TEST_P(LinuxDebianOn, BootsToALoginAndServesAndPowersOffCleanly) {
  const std::string disk = std::getenv("HOLDFAST_DEBIAN");
  Arguments arguments;
  for (const char* word : GetParam().arguments)
    arguments.push_back(fmt::format(fmt::runtime(word), disk));
  LiveADay(arguments, GetParam().root);
  ExpectClean(disk);
}

}  // namespace
}  // namespace holdfast::test
