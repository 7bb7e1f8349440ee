// SPDX-License-Identifier: Apache-2.0
#include "devices/scsi/scsi_disk.h"

#include <gtest/gtest.h>

#include <array>
#include <string>

#include "devices/block/file_device.h"
#include "devices/block/test_support.h"

namespace holdfast::devices::scsi {
namespace {

using block::TestImage;

constexpr std::size_t kDisk = 1 << 20;

class ScsiDiskTest : public ::testing::Test {
 protected:
  void Build(bool cdrom, bool readonly = false) {
    disk_.reset();
    drive_.reset();
    auto file = block::FileDevice::Open({.node_name = "node",
                                         .filename = image_.path(),
                                         .readonly = cdrom || readonly,
                                         .discard = true});
    ASSERT_TRUE(file) << file.error().ToString();
    file_ = *std::move(file);
    drive_ = std::make_unique<block::Drive>("d", file_.get(), nullptr);
    Identity identity;
    identity.cdrom = cdrom;
    identity.product = cdrom ? "CD-ROM" : "HARDDISK";
    identity.serial = "S123";
    identity.device_id = "S123";
    identity.wwn = 0x5000c50015ea71acULL;
    identity.block_size = cdrom ? 2048 : 512;
    ASSERT_TRUE(drive_->Attach({.name = "disk",
                                .medium_going = [this] { disk_->MediumGoing(); },
                                .medium_changed = [this] { disk_->MediumChanged(); },
                                .removable = cdrom},
                               identity.block_size));
    disk_ = std::make_unique<ScsiDisk>(*loop_, *drive_, identity);
    Run({kTestUnitReady, 0, 0, 0, 0, 0});  // takes "powered on" away
  }
  // Runs a command; what it gives is in answer_, how it ends in command_.
  const Command& Run(std::vector<std::uint8_t> cdb, std::size_t in = 0, std::string out = {}) {
    command_ = std::make_shared<Command>();
    command_->cdb = std::move(cdb);
    command_->cdb.resize(32);
    answer_.assign(in, '?');
    out_ = std::move(out);
    command_->in_size = in;
    command_->out_size = out_.size();
    if (in != 0) command_->data_in = {{answer_.data(), in}};
    if (!out_.empty()) command_->data_out = {{out_.data(), out_.size()}};
    bool done = false;
    command_->done = [&](Command&) { done = true; };
    disk_->Execute(command_);
    disk_->Kick();
    const auto deadline = EventLoop::Clock::now() + std::chrono::minutes(1);
    while (!done && EventLoop::Clock::now() < deadline) {
      EXPECT_TRUE(loop_->RunOnce(std::chrono::milliseconds(100)));
    }
    EXPECT_TRUE(done);
    command_->done = [](Command&) {};
    return *command_;
  }
  std::uint64_t Number(std::size_t offset, std::size_t size) const {
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < size; ++i) {
      value = value << 8 | static_cast<std::uint8_t>(answer_[offset + i]);
    }
    return value;
  }

  TestImage image_{kDisk, 'i'};
  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  std::unique_ptr<block::FileDevice> file_;
  std::unique_ptr<block::Drive> drive_;
  std::unique_ptr<ScsiDisk> disk_;
  std::shared_ptr<Command> command_;
  std::string answer_;
  std::string out_;
};

TEST_F(ScsiDiskTest, TellsOnceThatItWasPoweredOn) {
  Build(false);
  disk_->Reset();
  EXPECT_EQ(Run({kInquiry, 0, 0, 0, 36, 0}, 36).status, kGood) << "INQUIRY always works";
  EXPECT_EQ(Run({kTestUnitReady, 0, 0, 0, 0, 0}).sense, kPoweredOn);
  EXPECT_EQ(Run({kTestUnitReady, 0, 0, 0, 0, 0}).status, kGood);
}

TEST_F(ScsiDiskTest, DescribesItself) {
  Build(false);
  Run({kInquiry, 0, 0, 0, 96, 0}, 96);
  EXPECT_EQ(command_->transferred, 36U);
  EXPECT_EQ(answer_.substr(8, 16), "HOLDFASTHARDDISK");
  Run({kInquiry, 1, 0x00, 0, 255, 0}, 255);
  EXPECT_EQ(answer_.substr(4, command_->transferred - 4), std::string("\0\x80\x83\xb0\xb1\xb2", 6));
  Run({kInquiry, 1, 0x80, 0, 255, 0}, 255);
  EXPECT_EQ(answer_.substr(4, 4), "S123");
  Run({kInquiry, 1, 0x83, 0, 255, 0}, 255);
  EXPECT_EQ(answer_.substr(8, 4), "S123");
  EXPECT_EQ(Number(16, 8), 0x5000c50015ea71acULL);
  EXPECT_EQ(Run({kInquiry, 1, 0x99, 0, 255, 0}, 255).sense, kInvalidField);
  Run({kReadCapacity10, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 8);
  EXPECT_EQ(Number(0, 4), kDisk / 512 - 1);
  EXPECT_EQ(Number(4, 4), 512U);
  Run({kServiceActionIn16, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0}, 32);
  EXPECT_EQ(Number(0, 8), kDisk / 512 - 1);
  EXPECT_EQ(Number(14, 1), 0x80U) << "unmaps";
}

TEST_F(ScsiDiskTest, ReadsAndWritesInEveryForm) {
  Build(false);
  const std::string one(512, 'w');
  EXPECT_EQ(Run({kWrite6, 0, 0, 1, 1, 0}, 0, one).status, kGood);
  EXPECT_EQ(Run({kWrite10, 0, 0, 0, 0, 2, 0, 0, 1, 0}, 0, one).status, kGood);
  EXPECT_EQ(Run({kWrite12, 0, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0}, 0, one).status, kGood);
  EXPECT_EQ(Run({kWrite16, 8, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0}, 0, one).status, kGood);
  EXPECT_EQ(Run({kSynchronizeCache10, 0, 0, 0, 0, 0, 0, 0, 0, 0}).status, kGood);
  const std::string want = std::string(512, 'i') + std::string(2048, 'w') + std::string(512, 'i');
  EXPECT_EQ(image_.Contents().substr(0, 3072), want);
  EXPECT_EQ(Run({kRead6, 0, 0, 0, 6, 0}, 3072).status, kGood);
  EXPECT_EQ(answer_, want);
  Run({kRead10, 0, 0, 0, 0, 0, 0, 0, 6, 0}, 3072);
  EXPECT_EQ(answer_, want);
  Run({kRead12, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0}, 3072);
  EXPECT_EQ(answer_, want);
  Run({kRead16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0}, 3072);
  EXPECT_EQ(answer_, want);
}

TEST_F(ScsiDiskTest, RefusesWhatCannotBe) {
  Build(false);
  EXPECT_EQ(Run({kRead10, 0, 0, 0, 8, 0, 0, 0, 1, 0}, 512).sense, kLbaOutOfRange);
  EXPECT_EQ(Run({kRead16, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0}, 512)
                .sense,
            kLbaOutOfRange);
  EXPECT_TRUE(Run({kRead10, 0, 0, 0, 0, 0, 0, 0, 2, 0}, 512).overrun);
  EXPECT_TRUE(Run({kWrite10, 0, 0, 0, 0, 0, 0, 0, 2, 0}, 0, std::string(512, 'x')).overrun);
  EXPECT_EQ(Run({0x01, 0, 0, 0, 0, 0}).sense, kInvalidOpcode);
  EXPECT_EQ(Run({0xff}).sense, kInvalidOpcode);
  EXPECT_EQ(Run({kReadToc, 0, 0, 0, 0, 0, 0, 0, 12, 0}, 12).sense, kInvalidOpcode);
  Build(false, /*readonly=*/true);
  EXPECT_EQ(Run({kWrite10, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 0, std::string(512, 'x')).sense,
            kWriteProtected);
  EXPECT_EQ(image_.Contents(), std::string(kDisk, 'i'));
}

TEST_F(ScsiDiskTest, UnmapsAndWritesTheSameBlockManyTimes) {
  Build(false);
  std::string ranges(40, '\0');
  ranges[1] = 38;
  ranges[3] = 32;
  ranges[15] = 8;   // block 8
  ranges[19] = 8;   // 8 of them
  ranges[31] = 64;  // block 64
  ranges[35] = 16;
  EXPECT_EQ(Run({kUnmap, 0, 0, 0, 0, 0, 0, 0, 40, 0}, 0, ranges).status, kGood);
  EXPECT_TRUE(image_.Contents().substr(4096, 4096) == std::string(4096, '\0'));
  EXPECT_TRUE(image_.Contents().substr(64 * 512, 8192) == std::string(8192, '\0'));
  EXPECT_EQ(
      Run({kWriteSame16, 0, 0, 0, 0, 0, 0, 0, 0, 128, 0, 0, 1, 0, 0, 0}, 0, std::string(512, 's'))
          .status,
      kGood);
  EXPECT_EQ(image_.Contents().substr(128 * 512, 256 * 512), std::string(256 * 512, 's'));
  EXPECT_EQ(Run({kWriteSame16, 9, 0, 0, 0, 0, 0, 0, 0, 128, 0, 0, 1, 0, 0, 0}).status, kGood);
  EXPECT_TRUE(image_.Contents().substr(128 * 512, 256 * 512) == std::string(256 * 512, '\0'));
  ranges[3] = 31;
  EXPECT_EQ(Run({kUnmap, 0, 0, 0, 0, 0, 0, 0, 40, 0}, 0, ranges).sense, kBadParameterLength);
}

TEST_F(ScsiDiskTest, LetsTheGuestSwitchTheWriteCache) {
  Build(false);
  Run({kModeSense6, 0, 0x08, 0, 255, 0}, 255);
  EXPECT_EQ(Number(3, 1), 8U) << "a block descriptor";
  EXPECT_EQ(Number(12, 1), 0x08U);
  EXPECT_EQ(Number(14, 1), 0x04U) << "write cache on";
  std::string page(24, '\0');
  page[4] = 0x08;
  page[5] = 18;
  EXPECT_EQ(Run({kModeSelect6, 0x10, 0, 0, 24, 0}, 0, page).status, kGood);
  EXPECT_FALSE(drive_->write_cache());
  Run({kModeSense10, 8, 0x08, 0, 0, 0, 0, 0, 255, 0}, 255);
  EXPECT_EQ(Number(10, 1), 0U);
  page[5] = 40;
  EXPECT_EQ(Run({kModeSelect6, 0x10, 0, 0, 24, 0}, 0, page).sense, kInvalidParameter);
}

TEST_F(ScsiDiskTest, ACdRomHasATrayAndATableOfContents) {
  Build(true);
  Run({kReadCapacity10, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 8);
  EXPECT_EQ(Number(0, 4), kDisk / 2048 - 1);
  Run({kReadToc, 0, 0, 0, 0, 0, 0, 0, 20, 0}, 20);
  EXPECT_EQ(Number(16, 4), kDisk / 2048) << "the lead-out";
  Run({kGetConfiguration, 0, 0, 0, 0, 0, 0, 0, 64, 0}, 64);
  EXPECT_EQ(Number(6, 2), 8U) << "a CD";
  EXPECT_EQ(Run({kWrite10, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 0, std::string(2048, 'x')).sense,
            kWriteProtected);
  Run({kPreventAllow, 0, 0, 0, 1, 0});
  EXPECT_TRUE(drive_->tray_locked());
  EXPECT_EQ(Run({kStartStopUnit, 0, 0, 0, 2, 0}).sense, kRemovalPrevented);
  Run({kPreventAllow, 0, 0, 0, 0, 0});
  EXPECT_EQ(Run({kStartStopUnit, 0, 0, 0, 2, 0}).status, kGood);
  EXPECT_EQ(Run({kTestUnitReady, 0, 0, 0, 0, 0}).sense, kNoMediumTrayOpen);
  EXPECT_EQ(Run({kStartStopUnit, 0, 0, 0, 3, 0}).status, kGood);
  EXPECT_EQ(Run({kTestUnitReady, 0, 0, 0, 0, 0}).status, kGood);
}

TEST_F(ScsiDiskTest, NoticesThatItsMediumWasChanged) {
  Build(true);
  Run({kRead10, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 2048);
  block::BlockDevice* const medium = drive_->medium();
  ASSERT_TRUE(drive_->SetMedium(nullptr));
  EXPECT_EQ(Run({kRead10, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 2048).sense, kNoMediumTrayOpen);
  Run({kGetEventStatus, 1, 0, 0, 0x10, 0, 0, 0, 8, 0}, 8);
  EXPECT_EQ(Number(4, 2), 0x0301U) << "removed, tray open";
  ASSERT_TRUE(drive_->SetMedium(medium));
  EXPECT_EQ(Run({kTestUnitReady, 0, 0, 0, 0, 0}).sense, kMediumChanged);
  EXPECT_EQ(Run({kRead10, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 2048).status, kGood);
  EXPECT_EQ(answer_, std::string(2048, 'i'));
}

TEST(ScsiCdb, ReadsTheLengthsOfItsGroups) {
  EXPECT_FALSE(ParseCdb({}));
  const std::array<std::uint8_t, 6> short_read = {kRead10, 0, 0, 0, 0, 0};
  EXPECT_FALSE(ParseCdb(short_read));
  const std::array<std::uint8_t, 6> read = {kRead6, 0xff, 0xff, 0xff, 0, 0};
  const auto cdb = ParseCdb(read);
  ASSERT_TRUE(cdb);
  EXPECT_EQ(cdb->lba, 0x1fffffU);
  EXPECT_EQ(cdb->length, 256U);
}

}  // namespace
}  // namespace holdfast::devices::scsi
