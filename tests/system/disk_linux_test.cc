// SPDX-License-Identifier: Apache-2.0
// Disks in a Linux guest. Whatever the guest does to its disk is looked at from outside, in the
// file.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>
#include <signal.h>

#include <cstdlib>

#include "system/device_guest.h"

namespace holdfast::test {
namespace {

constexpr std::size_t kHalf = 2 * kMiB;

class LinuxDisk : public LinuxDeviceTest {
 protected:
  // The first half of `bytes` and its copy must be all there is.
  static void ExpectCopied(const std::string& path) {
    const std::string all = ReadAll(path);
    const std::string pattern = Pattern(kHalf);
    ASSERT_EQ(all.size(), 2 * kHalf);
    EXPECT_TRUE(all.compare(0, kHalf, pattern) == 0) << "the first half was only to be read";
    EXPECT_TRUE(all.compare(kHalf, kHalf, pattern) == 0)
        << "the second half is no copy of the first";
  }
  // A disk file whose first half is the pattern.
  std::string HalfDisk(std::string_view name) const {
    return MakeFile(name, Pattern(kHalf) + std::string(kHalf, '\x5a'));
  }
};

Arguments BlkDisk(const std::string& path, std::string_view drive, std::string_view device) {
  return {"-drive", fmt::format("file={},if=none,id=d0,format=raw{}", path, drive), "-device",
          fmt::format("virtio-blk-pci,drive=d0{}", device)};
}

TEST_F(LinuxDisk, BlkReadsAndWritesThroughTwoQueuesPastThePageCache) {
  constexpr std::string_view kScript =
      "d=/sys/block/vda\n"
      "echo hf: size=$(cat $d/size) serial=$(cat $d/serial) queues=$(ls $d/mq | wc -l)\n"
      "copy() { taskset $1 dd if=/dev/vda of=/dev/vda bs=64k count=16 skip=$2 seek=$3 "
      "iflag=direct oflag=direct conv=notrunc,fsync 2>&1 || echo hf: failed; }\n"
      "copy 1 0 32 & copy 2 16 48 & wait\n"
      "dd if=/dev/vda bs=64k skip=32 iflag=direct | md5sum >/tmp/a\n"
      "dd if=/dev/vda bs=64k count=32 | md5sum | cmp - /tmp/a && echo hf: same=yes\n";
  const std::string path = HalfDisk("disk");
  MonitorProcess monitor(Guest(kScript, {.cpus = 2}) +
                         BlkDisk(path, ",cache=none", ",num-queues=2,serial=HF0123456789"));
  EXPECT_ENDS(monitor, 0);
  EXPECT_EQ(ValueOf(monitor, "size"),
            fmt::format("{} serial=HF0123456789 queues=2", 2 * kHalf / 512));
  EXPECT_EQ(ValueOf(monitor, "same"), "yes") << monitor.Describe();
  ExpectCopied(path);
}

TEST_F(LinuxDisk, BlkKeepsAFileSystemAcrossGuests) {
  const std::string path = MakeFile("disk", std::string(4 * kMiB, '\0'));
  constexpr std::string_view kWrite =
      "mke2fs /dev/vda >/dev/null && mkdir /m && mount -t ext2 /dev/vda /m &&\n"
      "dd if=/dev/urandom of=/m/file bs=64k count=16 && cd /m && md5sum file >sum && cd / &&\n"
      "umount /m && echo hf: written=yes\n";
  constexpr std::string_view kRead =
      "mkdir /m && mount -t ext2 -o ro /dev/vda /m && cd /m && md5sum -c sum && echo hf: read=yes\n"
      "echo 1 2>/dev/null >/dev/vda && echo hf: wrote=yes\n"
      "echo hf: ro=$(cat /sys/block/vda/ro)\n";
  MonitorProcess first(Guest(kWrite) + BlkDisk(path, "", ""));
  EXPECT_ENDS(first, 0);
  ASSERT_EQ(ValueOf(first, "written"), "yes") << first.Describe();
  const std::string before = ReadAll(path);
  MonitorProcess second(Guest(kRead) + BlkDisk(path, ",readonly=on", ""));
  EXPECT_ENDS(second, 0);
  EXPECT_EQ(ValueOf(second, "read"), "yes") << second.Describe();
  EXPECT_EQ(ValueOf(second, "ro"), "1");
  EXPECT_EQ(ValueOf(second, "wrote"), "");
  EXPECT_TRUE(ReadAll(path) == before) << "a read-only disk has changed";
}

TEST_F(LinuxDisk, BlkDiscards) {
  constexpr std::string_view kScript =
      "blkdiscard -o 524288 -l 524288 /dev/vda && echo hf: discarded=yes\n"
      "echo hf: most=$(cat /sys/block/vda/queue/discard_max_bytes)\n";
  const std::string path = HalfDisk("disk");
  MonitorProcess monitor(Guest(kScript) + BlkDisk(path, ",discard=unmap", ""));
  EXPECT_ENDS(monitor, 0);
  ASSERT_EQ(ValueOf(monitor, "discarded"), "yes") << monitor.Describe();
  const std::string all = ReadAll(path);
  const std::string pattern = Pattern(kHalf);
  constexpr std::size_t kPart = 512 * kKiB;
  EXPECT_TRUE(all.compare(0, kPart, pattern, 0, kPart) == 0);
  EXPECT_TRUE(all.compare(kPart, kPart, std::string(kPart, '\0')) == 0);
  EXPECT_TRUE(all.compare(2 * kPart, kPart, pattern, 2 * kPart, kPart) == 0);
}

// An I/O thread has the fewest system calls that disks can do with.
TEST_F(LinuxDisk, IoThreadsServeDisksInTheSandbox) {
  constexpr std::string_view kScript =
      "dd if=/dev/vda of=/dev/vda bs=64k count=32 seek=32 iflag=direct oflag=direct "
      "conv=notrunc,fsync && "
      "blkdiscard -o 0 -l 131072 /dev/vda && echo hf: copied=yes\n";
  for (const std::string_view aio : {"native", "threads"}) {
    SCOPED_TRACE(aio);
    const std::string path = HalfDisk("disk");
    MonitorProcess monitor(
        Guest(kScript) + Arguments{"-object", "iothread,id=io0", "-sandbox", "on"} +
        BlkDisk(path, fmt::format(",cache=none,discard=unmap,aio={}", aio), ",iothread=io0"));
    EXPECT_ENDS(monitor, 0);
    ASSERT_EQ(ValueOf(monitor, "copied"), "yes") << monitor.Describe();
    EXPECT_EQ(ReadAll(path),
              std::string(128 * kKiB, '\0') + Pattern(kHalf).substr(128 * kKiB) + Pattern(kHalf));
  }
}

// Two guests after each other, on the same image: what the first one writes, the second one does
// not see, nor does the file. In the sandbox, where nothing can be deleted or started any more.
TEST_F(LinuxDisk, WithASnapshotNothingIsKept) {
  constexpr std::string_view kScript =
      "dd if=/dev/vda bs=64k count=32 | md5sum >/tmp/before\n"
      "dd if=/dev/zero bs=64k count=32 | md5sum >/tmp/zero\n"
      "cmp /tmp/before /tmp/zero || echo hf: old=yes\n"
      "dd if=/dev/zero of=/dev/vda bs=64k count=64 oflag=direct conv=notrunc,fsync &&\n"
      "dd if=/dev/vda bs=64k count=32 iflag=direct | md5sum | cmp - /tmp/zero && echo hf: "
      "new=yes\n";
  const std::string path = HalfDisk("disk");
  const std::string before = ReadAll(path);
  const std::string drive = fmt::format("file={},if=virtio,format=raw", path);
  for (const Arguments& how :
       {Arguments{"-snapshot", "-drive", drive}, Arguments{"-drive", drive + ",snapshot=on"}}) {
    MonitorProcess monitor(Guest(kScript) + how + Arguments{"-sandbox", "on"});
    EXPECT_ENDS(monitor, 0);
    EXPECT_EQ(ValueOf(monitor, "old"), "yes") << monitor.Describe();
    EXPECT_EQ(ValueOf(monitor, "new"), "yes") << monitor.Describe();
    EXPECT_TRUE(ReadAll(path) == before) << "the image has changed";
  }
}

TEST_F(LinuxDisk, ScsiHdReadsAndWritesAndScsiCdIsRead) {
  constexpr std::string_view kScript =
      "i=0; until [ -b /dev/sda ] && [ -b /dev/sr0 ] || [ $i = 100 ]; do i=$((i+1)); usleep 100000;"
      " done\n"
      "dd if=/dev/sda of=/dev/sda bs=64k count=32 seek=32 iflag=direct oflag=direct "
      "conv=notrunc,fsync && echo hf: copied=yes\n"
      "dd if=/dev/sr0 bs=32k | md5sum >/tmp/a; dd if=/dev/sda bs=64k count=32 | md5sum |\n"
      "cmp - /tmp/a && echo hf: cd=yes\n";
  const std::string path = HalfDisk("disk");
  MonitorProcess monitor(
      Guest(kScript) +
      Arguments{"-device", "virtio-scsi-pci,id=scsi0", "-drive",
                fmt::format("file={},if=none,id=d0,format=raw,cache=none", path), "-device",
                "scsi-hd,drive=d0,bus=scsi0.0", "-drive",
                fmt::format("file={},if=none,id=d1,format=raw,media=cdrom,readonly=on",
                            MakePattern("cd", kHalf)),
                "-device", "scsi-cd,drive=d1,bus=scsi0.0"});
  EXPECT_ENDS(monitor, 0);
  EXPECT_EQ(ValueOf(monitor, "copied"), "yes") << monitor.Describe();
  EXPECT_EQ(ValueOf(monitor, "cd"), "yes") << monitor.Describe();
  ExpectCopied(path);
}

// Goes through the records that an earlier guest had synced, then writes more, each a line that is
// as long as a page and says which it is. "hf: synced" comes only after the flush.
std::string LogScript(int synced) {
  return fmt::format(
      "dd if=/dev/vda bs=4k skip=1 count={} iflag=direct | awk '$1 != NR {{ print \"hf: lost=\" NR "
      "}} "
      "END {{ print \"hf: checked=\" NR }}'\n"
      "i={}\n"
      "while [ $i -lt 1000 ]; do i=$((i+1)); printf '%4095d\\n' $i >/tmp/r\n"
      "dd if=/tmp/r of=/dev/vda bs=4k seek=$i conv=notrunc,fsync 2>/dev/null && echo hf: "
      "synced=$i\n"
      "done\n",
      synced, synced);
}

TEST_F(LinuxDisk, WhatTheGuestSyncedIsThereAfterTheMonitorWasKilled) {
  const std::string path = MakeFile("disk", std::string(1024 * 4096, '\0'));
  int synced = 0;
  for (int round = 0; round < (LongForm() ? 20 : 2); ++round) {
    MonitorProcess monitor(Guest(LogScript(synced)) + BlkDisk(path, ",cache=none", ""));
    ASSERT_TEXT(monitor, fmt::format("hf: checked={}\r", synced));
    ASSERT_EQ(monitor.output().find("hf: lost"), std::string::npos) << monitor.Describe();
    ASSERT_TEXT(monitor, fmt::format("hf: synced={}\r", synced + 10 + 3 * round % 7));
    ASSERT_TRUE(monitor.Signal(SIGKILL));
    ASSERT_TRUE(monitor.WaitForExit());
    synced = std::atoi(ValueOf(monitor, "synced").c_str());
    const std::string all = ReadAll(path);
    for (int i = 1; i <= synced; ++i)
      ASSERT_EQ(all.substr(static_cast<std::size_t>(i) * 4096, 4096), fmt::format("{:>4095}\n", i))
          << "round " << round;
  }
}

}  // namespace
}  // namespace holdfast::test
