// SPDX-License-Identifier: Apache-2.0
// A whole Debian system (lab/debian) on a disk: systemd, serial console, network, SSH.
// HOLDFAST_DEBIAN names the disk, which is written to.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/unique_fd.h>
#include <holdfast/units.h>
#include <sys/socket.h>

#include <linux/vm_sockets.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <ostream>
#include <vector>

#include "devices/vhost_user/test_backend.h"
#include "system/device_guest.h"

namespace holdfast::test {
namespace {

using devices::vhost_user::TestBackend;
using ::testing::HasSubstr;
// Booting takes a minute or two in the lab.
constexpr double kBoot = 400;
constexpr unsigned kGuestCid = 77;
constexpr std::uintmax_t kBlkSize = 8 * kMiB;
constexpr std::uintmax_t kScsiSize = 9 * kMiB;
constexpr std::uintmax_t kQcow2Size = 10 * kMiB;

// A listening AF_VSOCK socket on any port. @return invalid where the host has none
UniqueFd ListenOnVsock(unsigned& port) {
  UniqueFd fd(::socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_vm address{};
  address.svm_family = AF_VSOCK;
  address.svm_cid = VMADDR_CID_ANY;
  address.svm_port = VMADDR_PORT_ANY;
  socklen_t size = sizeof address;
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  if (::bind(fd.get(), generic, size) != 0 || ::listen(fd.get(), 1) != 0 ||
      ::getsockname(fd.get(), generic, &size) != 0) {
    return {};
  }
  port = address.svm_port;
  return fd;
}

// A command of this host's. @return its exit status
template <typename... Words>
int Shell(fmt::format_string<const Words&...> command, const Words&... words) {
  return std::system(fmt::format(command, words...).c_str());
}

// What the next to connect says, and who it is.
std::string Hear(const UniqueFd& listener, unsigned& cid) {
  sockaddr_vm from{};
  socklen_t size = sizeof from;
  const UniqueFd guest(
      ::accept4(listener.get(), reinterpret_cast<sockaddr*>(&from), &size, SOCK_CLOEXEC));
  cid = from.svm_cid;
  std::array<char, 64> text{};
  const ssize_t got = ::recv(guest.get(), text.data(), text.size(), MSG_WAITALL);
  return {text.data(), got > 0 ? static_cast<std::size_t>(got) : 0};
}

class LinuxDebian : public LinuxDeviceTest {
 protected:
  void SetUp() override {
    LinuxDeviceTest::SetUp();
    if (IsSkipped()) return;
    if (std::getenv("HOLDFAST_DEBIAN") == nullptr)
      GTEST_SKIP() << "HOLDFAST_DEBIAN names no disk with a Debian system";
  }

  Arguments Debian(std::uint16_t ssh) const {
    return Line({.ram = 512 * kMiB}, "hf.do=none hf.root=LABEL=debian systemd.show_status=0") +
           Arguments{"-nic",
                     fmt::format("user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{}-:22", ssh),
                     "-device",
                     "virtio-rng-pci",
                     "-device",
                     "virtio-balloon-pci,free-page-reporting=on,deflate-on-oom=on",
                     "-device",
                     fmt::format("vhost-vsock-pci,guest-cid={}", kGuestCid),
                     "-sandbox",
                     "on"};
  }

  // A disk of each kind besides the one it boots from, and a folder; told apart by their sizes.
  Arguments Work(const std::string& folder_socket) const {
    for (const char* name : {"blk", "scsi"}) {
      std::filesystem::resize_file(MakeFile(name, ""), name[0] == 'b' ? kBlkSize : kScsiSize);
    }
    EXPECT_EQ(Shell("qemu-img create -q -f qcow2 {} {}", Path("qcow2"), kQcow2Size), 0);
    return {"-object",  "iothread,id=io0",
            "-object",  "iothread,id=io1",
            "-drive",   fmt::format("file={},if=none,id=d1,format=raw,cache=none", Path("blk")),
            "-device",  "virtio-blk-pci,drive=d1,iothread=io0,num-queues=2",
            "-drive",   fmt::format("file={},if=none,id=d2,format=raw,cache=none", Path("scsi")),
            "-device",  "virtio-scsi-pci,id=work,iothread=io1",
            "-device",  "scsi-hd,drive=d2,bus=work.0",
            "-drive",   fmt::format("file={},if=virtio,format=qcow2", Path("qcow2")),
            "-chardev", fmt::format("socket,id=c0,path={}", folder_socket),
            "-device",  "vhost-user-fs-pci,chardev=c0,tag=folder"};
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

  // The guest calls the host by AF_VSOCK, in the one language that it has.
  static void Talk(std::uint16_t ssh) {
    unsigned port = 0;
    const UniqueFd listener = ListenOnVsock(port);
    ASSERT_TRUE(listener.valid()) << "no AF_VSOCK here";
    Ssh(ssh, fmt::format("perl -e 'socket(S,40,1,0) or die $!; "
                         "connect(S,pack(\"S S L L x4\",40,0,{},2)) or die $!; "
                         "syswrite(S,\"hello host\")'",
                         port));
    unsigned cid = 0;
    EXPECT_EQ(Hear(listener, cid), "hello host");
    EXPECT_EQ(cid, kGuestCid);
  }

  // Writes in random order to a disk of each kind, past the guest's cache, and to a file of the
  // host's, all at once; then all of it is read and compared (fio's checksums).
  static void WriteAndVerify(std::uint16_t ssh) {
    const std::string told =
        Ssh(ssh, fmt::format(
                     R"(set -e; mkdir /run/folder; mount -t virtiofs folder /run/folder
jobs=$(lsblk -bdnro NAME,SIZE | awk '$2 ~ /^({}|{}|{})$/ {{print "--name=" $1 " --filename=/dev/" $1}}')
fio --output=/run/fio --output-format=terse --ioengine=libaio --iodepth=8 --direct=1 --bs=16k \
  --rw=randwrite --verify=crc32c --do_verify=1 --verify_fatal=1 $jobs \
  --name=folder --direct=0 --ioengine=psync --filename=/run/folder/v --size=4m
umount /run/folder; echo jobs=$(wc -l </run/fio))",
                     kBlkSize, kScsiSize, kQcow2Size));
    EXPECT_THAT(told, HasSubstr("jobs=4")) << "a job for each disk and one for the folder";
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
    std::filesystem::create_directory(Path("folder"));
    TestBackend virtiofsd({devices::vhost_user::kVirtiofsd, "--socket-path=" + Path("fs.sock"),
                           "-o", "source=" + Path("folder"), "-o", "sandbox=chroot"},
                          Path("fs.sock"));
    ASSERT_TRUE(virtiofsd.Start());
    MonitorProcess monitor(Debian(port) + disk + Work(Path("fs.sock")));
    ASSERT_TRUE(monitor.WaitFor("login:", kBoot)) << monitor.Describe();
    const std::string told = Ssh(
        port, fmt::format("set -e; systemctl is-system-running --wait || systemctl --failed;"
                          "/usr/lib/apt/apt-helper download-file http://10.0.2.2:{}/x /var/tmp/x;"
                          "wc -c /var/tmp/x; sync; findmnt -no SOURCE /; nproc",
                          server.port()));
    EXPECT_THAT(told, HasSubstr("running"));
    EXPECT_THAT(told, HasSubstr(fmt::format("{} /var/tmp/x", body.size())));
    EXPECT_THAT(told, HasSubstr(root));
    Talk(port);
    WriteAndVerify(port);
    EXPECT_GE(std::filesystem::file_size(Path("folder") + "/v"), 4 * kMiB);
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
  const char* root;      // how the disk's name in the guest begins
  bool overlay = false;  // in a qcow2 image before the disk, whose changes go there in the end
};

void PrintTo(const Attachment& attachment, std::ostream* out) {
  *out << attachment.name;
}

std::vector<Attachment> Attachments() {
  std::vector<Attachment> all = {{"blk",
                                  {"-drive", "file={},if=none,id=d0,format=raw,cache=none",
                                   "-device", "virtio-blk-pci,drive=d0"},
                                  "/dev/vd"}};
  if (LongForm()) {
    all.push_back(
        {"scsi",
         {"-device", "virtio-scsi-pci,id=scsi0", "-drive",
          "file={},if=none,id=d0,format=raw,cache=none", "-device", "scsi-hd,drive=d0,bus=scsi0.0"},
         "/dev/sd"});
    all.push_back({"qcow2", {"-drive", "file={},if=virtio,format=qcow2"}, "/dev/vd", true});
  }
  return all;
}

class LinuxDebianOn : public LinuxDebian, public ::testing::WithParamInterface<Attachment> {};
INSTANTIATE_TEST_SUITE_P(, LinuxDebianOn, ::testing::ValuesIn(Attachments()),
                         ::testing::PrintToStringParamName());

TEST_P(LinuxDebianOn, BootsToALoginAndServesAndPowersOffCleanly) {
  const std::string disk = std::getenv("HOLDFAST_DEBIAN");
  const std::string image = GetParam().overlay ? Path("root.qcow2") : disk;
  if (GetParam().overlay) {
    ASSERT_EQ(Shell("qemu-img create -q -f qcow2 -F raw -b {} {}", disk, image), 0);
  }
  Arguments arguments;
  for (const char* word : GetParam().arguments)
    arguments.push_back(fmt::format(fmt::runtime(word), image));
  LiveADay(arguments, GetParam().root);
  if (GetParam().overlay) {
    ASSERT_EQ(Shell("qemu-img commit -q {}", image), 0);
  }
  ExpectClean(disk);
}

}  // namespace
}  // namespace holdfast::test
