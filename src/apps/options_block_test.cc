// SPDX-License-Identifier: Apache-2.0
#include "apps/options_block.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "apps/options.h"

namespace holdfast::apps {
namespace {

using devices::block::AioWord;
using devices::block::DetectZeroes;
using devices::block::OnError;
using object::ThrottleKind;
using ::testing::HasSubstr;

Result<Options> Parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), {"-kernel", "k"});
  return ParseCommandLine(arguments);
}

TEST(OptionsBlock, ReadsADrivesWords) {
  const auto drive = ReadDrive(
      "file=/a,,b.img,format=raw,if=virtio,id=d,cache=none,aio=native,readonly=on,discard=unmap,"
      "detect-zeroes=unmap,rerror=stop,werror=report,throttling.bps-total=1000,"
      "throttling.bps-total-max=2000,throttling.bps-total-max-length=3,iops_rd=7,iops_size=4096,"
      "group=g");
  ASSERT_TRUE(drive) << drive.error().ToString();
  EXPECT_EQ(drive->interface, DriveInterface::kVirtio);
  EXPECT_EQ(drive->id, "d");
  ASSERT_TRUE(drive->node);
  EXPECT_EQ(drive->node->filename, "/a,b.img");
  EXPECT_TRUE(drive->node->direct);
  EXPECT_TRUE(drive->write_cache);
  EXPECT_EQ(drive->node->aio, AioWord::kNative);
  EXPECT_EQ(drive->node->read_only, true);
  EXPECT_TRUE(drive->node->discard);
  EXPECT_EQ(drive->node->detect_zeroes, DetectZeroes::kUnmap);
  EXPECT_EQ(drive->read_error, OnError::kStop);
  EXPECT_EQ(drive->write_error, OnError::kReport);
  const object::ThrottleLimit total{.average = 1000, .maximum = 2000, .burst_seconds = 3};
  EXPECT_EQ(drive->limits[ThrottleKind::kBpsTotal], total);
  EXPECT_EQ(drive->limits[ThrottleKind::kIopsRead].average, 7U);
  EXPECT_EQ(drive->limits.iops_size, 4096U);
  EXPECT_EQ(drive->throttle_group, "g");
}

TEST(OptionsBlock, KnowsQemusCacheModes) {
  const struct {
    const char* words;
    bool direct;
    bool no_flush;
    bool write_cache;
  } kCases[] = {
      {"file=x", false, false, true},
      {"file=x,cache=none", true, false, true},
      {"file=x,cache=writeback", false, false, true},
      {"file=x,cache=writethrough", false, false, false},
      {"file=x,cache=unsafe", false, true, true},
      {"file=x,cache=directsync", true, false, false},
      {"file=x,cache=none,cache.direct=off", false, false, true},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.words);
    const auto drive = ReadDrive(c.words);
    ASSERT_TRUE(drive) << drive.error().ToString();
    EXPECT_EQ(drive->node->direct, c.direct);
    EXPECT_EQ(drive->node->no_flush, c.no_flush);
    EXPECT_EQ(drive->write_cache, c.write_cache);
  }
}

TEST(OptionsBlock, LeavesImagesToTheStorageDaemon) {
  for (const char* const format : {"qcow2", "vmdk", "vdi"}) {
    SCOPED_TRACE(format);
    const auto drive = ReadDrive(std::string("file=x,cache=none,if=virtio,format=") + format);
    ASSERT_TRUE(drive) << drive.error().ToString();
    EXPECT_EQ(drive->image_format, format);
    EXPECT_TRUE(drive->node->direct);
  }
  EXPECT_EQ(ReadDrive("file=x,format=raw")->image_format, "");
  EXPECT_EQ(ReadDrive("file=x")->image_format, "");
}

TEST(OptionsBlock, SnapshotIsForDrivesThatAreWrittenAndDoNotSayOtherwise) {
  const struct {
    const char* words;
    bool global;
    bool snapshot;
  } kCases[] = {
      {"file=x,format=raw,if=virtio", false, false},
      {"file=x,format=raw,if=virtio", true, true},
      {"file=x,format=qcow2,if=virtio", true, true},
      {"file=x,format=raw,snapshot=on", false, true},
      {"file=x,format=raw,snapshot=off", true, false},
      {"file=x,format=raw,readonly=on", true, false},
      {"file=x,format=raw,readonly=on,snapshot=on", false, false},
      {"file=x,format=raw,media=cdrom", true, false},
      {"if=none", true, false},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(fmt::format("{} {}", c.words, c.global));
    std::vector<const char*> words = {"-drive", c.words};
    if (c.global) words.insert(words.begin(), "-snapshot");
    const auto options = Parse(words);
    ASSERT_TRUE(options) << options.error().ToString();
    EXPECT_EQ(options->drives[0].snapshot, c.snapshot);
    EXPECT_EQ(options->drives[0].served(),
              c.snapshot || options->drives[0].image_format == "qcow2");
  }
  const auto disk = Parse({"-snapshot", "-hda", "x"});
  ASSERT_TRUE(disk) << disk.error().ToString();
  EXPECT_EQ(disk->machine.devices[0].model->name, "virtio-blk-pci") << "the daemon has no others";
  const auto limited = Parse({"-drive", "file=x,format=raw,bps=1", "-snapshot"});
  ASSERT_FALSE(limited);
  EXPECT_THAT(limited.error().message(),
              HasSubstr("-drive file=x,format=raw,bps=1: snapshot=on needs qemu-storage-daemon"));
}

TEST(OptionsBlock, SaysWhatIsWrongWithADrive) {
  const struct {
    const char* words;
    const char* error;
  } kCases[] = {
      {"file=x,format=qcow2,media=cdrom", "where there are only virtio disks"},
      {"file=x,format=qcow2,if=scsi", "where there are only virtio disks"},
      {"file=x,format=vmdk,bps=1", "limits, rerror= and werror= have no effect"},
      {"file=x,format=qcow2,werror=stop", "limits, rerror= and werror= have no effect"},
      {"file=x,format=luks", "'luks' invalid format"},
      {"file=x,format=foo", "'foo' invalid format"},
      {"file=x,if=floppy", "Holdfast does not have them"},
      {"file=x,if=usb", "Parameter 'if' does not accept value 'usb'"},
      {"file=x,cache=fast", "Parameter 'cache' does not accept value 'fast'"},
      {"file=x,aio=native", "aio=native was specified, but it requires cache.direct=on"},
      {"file=x,snapshot=on,if=scsi", "snapshot=on needs qemu-storage-daemon, where there are only"},
      {"file=x,snapshot=on,bps=1", "limits, rerror= and werror= have no effect"},
      {"file=x,snapshot=maybe", "Parameter 'snapshot' expects 'on' or 'off'"},
      {"file=x,rerror=enospc", "'enospc' invalid read error action"},
      {"file=x,serial=1", "does not support the option 'serial'"},
      {"file=x,index=1,bus=0", "index cannot be used with bus and unit"},
      {"file=x,bps=1,bps_rd=1", "cannot be used at the same time"},
      {"file=x,id=1", "Parameter 'id' expects an identifier"},
      {"if=virtio", "Device needs media, but drive is empty"},
      {"file=x,bogus=1", "bogus"},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.words);
    const auto drive = ReadDrive(c.words);
    ASSERT_FALSE(drive);
    EXPECT_THAT(drive.error().message(), HasSubstr(c.error));
  }
}

TEST(OptionsBlock, NamesDrivesAsQemuAndMakesTheirDevices) {
  const auto options =
      Parse({"-drive", "file=a,format=raw,if=virtio", "-drive", "file=b,format=raw,if=virtio",
             "-hda", "c", "-cdrom", "d,e", "-drive", "file=f,if=none,format=raw,id=own", "-device",
             "virtio-blk-pci,drive=own"});
  ASSERT_TRUE(options) << options.error().ToString();
  std::vector<std::string> ids;
  for (const DriveRequest& drive : options->drives) ids.push_back(drive.id);
  EXPECT_EQ(ids, (std::vector<std::string>{"virtio0", "virtio1", "ide0-hd0", "ide2-cd0", "own"}));
  EXPECT_EQ(options->drives[3].node->filename, "d,e");
  EXPECT_EQ(options->drives[3].node->read_only, true);
  const auto& devices = options->machine.devices;
  std::vector<std::string> models;
  for (const auto& device : devices) models.emplace_back(device.model->name);
  EXPECT_EQ(models, (std::vector<std::string>{"virtio-blk-pci", "virtio-blk-pci", "virtio-blk-pci",
                                              "virtio-scsi-pci", "scsi-hd", "scsi-cd"}));
  EXPECT_EQ(*object::FindValue(devices[0].values, "drive"), "own") << "-device comes first";
  EXPECT_EQ(*object::FindValue(devices[1].values, "drive"), "virtio0");
  EXPECT_EQ(*object::FindValue(devices[5].values, "scsi-id"), "2");
  EXPECT_EQ(devices[5].bus, "scsi.0");
}

TEST(OptionsBlock, AWordThatIsNoOptionIsTheFirstDisk) {
  const auto options = Parse({"disk.img"});
  ASSERT_TRUE(options) << options.error().ToString();
  ASSERT_EQ(options->drives.size(), 1U);
  EXPECT_EQ(options->drives[0].node->filename, "disk.img");
  const auto twice = Parse({"disk.img", "-hda", "other.img"});
  ASSERT_FALSE(twice);
  EXPECT_THAT(twice.error().message(), HasSubstr("drive with bus=0, unit=0 (index=0) exists"));
}

TEST(OptionsBlock, ABlockdevNeedsAName) {
  EXPECT_TRUE(Parse({"-blockdev", "file,filename=x,node-name=n"}));
  EXPECT_TRUE(Parse({"-blockdev", R"({"driver": "null-co", "node-name": "n", "size": 512})"}));
  const auto unnamed = Parse({"-blockdev", "driver=file,filename=x"});
  ASSERT_FALSE(unnamed);
  EXPECT_THAT(unnamed.error().message(),
              HasSubstr("'node-name' must be specified for the root node"));
}

}  // namespace
}  // namespace holdfast::apps
