// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/virtio_blk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/guest_converter.h>
#include <holdfast/ram_block.h>
#include <holdfast/units.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "devices/block/file_device.h"
#include "devices/block/test_support.h"
#include "devices/virtio/test_driver.h"
#include "memory/conversion_engines.h"

namespace holdfast::devices::virtio {
namespace {

using block::TestImage;
using ::testing::Each;
using ::testing::HasSubstr;

constexpr std::size_t kDisk = 1 << 20;

std::vector<std::byte> Header(std::uint32_t type, std::uint64_t sector) {
  std::vector<std::byte> header(16);
  std::memcpy(header.data(), &type, sizeof type);
  std::memcpy(header.data() + 8, &sector, sizeof sector);
  return header;
}
std::vector<std::byte> Range(std::uint32_t type, std::uint64_t sector, std::uint32_t count,
                             std::uint32_t flags) {
  std::vector<std::byte> request = Header(type, 0);
  request.resize(32);
  std::memcpy(request.data() + 16, &sector, sizeof sector);
  std::memcpy(request.data() + 24, &count, sizeof count);
  std::memcpy(request.data() + 28, &flags, sizeof flags);
  return request;
}
std::vector<std::byte> With(std::vector<std::byte> header, std::size_t size, char fill) {
  header.resize(header.size() + size, static_cast<std::byte>(fill));
  return header;
}

// A medium that fails as told, one error for each request, or holds them, and else does what it is
// asked.
class FailingDevice final : public block::BlockDevice {
 public:
  explicit FailingDevice(BlockDevice& below) : below_(below) {}
  const std::string& id() const noexcept override { return below_.id(); }
  std::uint64_t size() const noexcept override { return below_.size(); }
  std::uint32_t block_size() const noexcept override { return 512; }
  bool readonly() const noexcept override { return false; }
  bool supports(block::Operation) const noexcept override { return true; }
  block::NodeInfo info() const override { return below_.info(); }
  Status PrepareFor(std::uint32_t size, bool share) override {
    return below_.PrepareFor(size, share);
  }
  void Release() noexcept override { below_.Release(); }
  Status Resize(std::uint64_t bytes) override { return below_.Resize(bytes); }
  Result<std::unique_ptr<Submitter>> MakeSubmitter(EventLoop& loop) override {
    HF_TRY(auto below, below_.MakeSubmitter(loop));
    return Result<std::unique_ptr<Submitter>>(std::make_unique<Failing>(*this, std::move(below)));
  }
  std::deque<int> errors;
  bool hold = false;
  std::size_t held() const { return held_.size(); }
  void LetGo() {
    hold = false;
    for (auto& [below, request] : std::exchange(held_, {})) {
      below->Submit(std::move(request));
      below->Kick();
    }
  }

 private:
  class Failing final : public Submitter {
   public:
    Failing(FailingDevice& device, std::unique_ptr<Submitter> below)
        : device_(device), below_(std::move(below)) {
      below_->set_batch_end([this] { EndBatch(); });
    }
    void Submit(block::Request request) override {
      if (device_.hold) {
        device_.held_.emplace_back(below_.get(), std::move(request));
        return;
      }
      if (!device_.errors.empty()) {
        const int error = device_.errors.front();
        device_.errors.pop_front();
        request.operation = block::Operation::kFlush;
        request.done = [error, done = std::move(request.done)](int) { done(error); };
      }
      below_->Submit(std::move(request));
    }
    void Kick() override { below_->Kick(); }
    void Drain() override { below_->Drain(); }

   private:
    FailingDevice& device_;
    std::unique_ptr<Submitter> below_;
  };
  BlockDevice& below_;
  std::vector<std::pair<Submitter*, block::Request>> held_;
};

class VirtioBlkTest : public ::testing::TestWithParam<bool> {
 protected:
  VirtioBlkTest() : image_(kDisk, 'i') {}
  void SetUp() override { Build({}); }
  void TearDown() override { driver_.reset(); }

  void Build(VirtioBlk::Config config, bool readonly = false) {
    driver_.reset();
    disk_.reset();
    drive_.reset();
    auto file = block::FileDevice::Open(
        {.node_name = "node", .filename = image_.path(), .readonly = readonly, .discard = true});
    ASSERT_TRUE(file) << file.error().ToString();
    file_ = *std::move(file);
    failing_ = std::make_unique<FailingDevice>(*file_);
    block::BlockDevice* const medium =
        readonly ? file_.get() : static_cast<block::BlockDevice*>(failing_.get());
    drive_ = std::make_unique<block::Drive>(
        "drive0", medium, [this](block::Drive&, block::Operation, int error, block::OnError what) {
          told_.emplace_back(error, what);
        });
    disk_ = std::make_unique<VirtioBlk>(DeviceThread(*loop_), *drive_, config);
    ASSERT_TRUE(drive_->Attach({.name = "disk"}));
    std::uint64_t features = ~0ULL;
    if (!GetParam()) features &= ~std::uint64_t{kFeatureRingPacked};
    driver_ = std::make_unique<TestDriver>(*disk_, *loop_, features);
    ASSERT_TRUE(driver_->Start());
  }
  // The status of a request; its answer's data goes to data_.
  int Ask(const std::vector<std::byte>& readable, std::uint32_t writable = 1) {
    auto answer = driver_->Ask(0, readable, writable);
    if (!answer) {
      ADD_FAILURE() << answer.error().ToString();
      return -1;
    }
    EXPECT_EQ(answer->written, writable);
    const int status = std::to_integer<int>(answer->data.back());
    answer->data.pop_back();
    data_ = std::string(reinterpret_cast<const char*>(answer->data.data()), answer->data.size());
    return status;
  }

  TestImage image_;
  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  std::unique_ptr<block::FileDevice> file_;
  std::unique_ptr<FailingDevice> failing_;
  std::unique_ptr<block::Drive> drive_;
  std::unique_ptr<VirtioBlk> disk_;
  std::unique_ptr<TestDriver> driver_;
  std::vector<std::pair<int, block::OnError>> told_;
  std::string data_;
};

INSTANTIATE_TEST_SUITE_P(Rings, VirtioBlkTest, ::testing::Bool(),
                         [](const auto& packed) { return packed.param ? "Packed" : "Split"; });

TEST_P(VirtioBlkTest, ReadsWritesAndFlushes) {
  EXPECT_EQ(Ask(With(Header(1, 3), 1024, 'w')), 0);
  EXPECT_EQ(Ask(Header(4, 0)), 0);
  EXPECT_EQ(Ask(Header(0, 2), 2049), 0);
  EXPECT_EQ(data_, std::string(512, 'i') + std::string(1024, 'w') + std::string(512, 'i'));
  EXPECT_EQ(image_.Contents().substr(1024, 2048), data_);
  EXPECT_EQ(drive_->stats().write.bytes, 1024U);
  EXPECT_EQ(drive_->stats().read.bytes, 2048U);
  EXPECT_EQ(drive_->stats().flush.operations, 1U);
}

TEST_P(VirtioBlkTest, DiscardsAndWritesZeroes) {
  EXPECT_EQ(Ask(Range(11, 8, 16, 0)), 0);
  EXPECT_EQ(Ask(Range(13, 64, 16, 0)), 0);
  EXPECT_EQ(Ask(Range(13, 128, 16, 1)), 0);
  const std::string contents = image_.Contents();
  for (const std::size_t sector : {8U, 64U, 128U}) {
    EXPECT_THAT(contents.substr(sector * 512, 8192), Each('\0'));
    EXPECT_EQ(contents[sector * 512 - 1], 'i');
    EXPECT_EQ(contents[(sector + 16) * 512], 'i');
  }
}

TEST_P(VirtioBlkTest, TellsItsSerialNumber) {
  VirtioBlk::Config config;
  config.serial = "a-serial-number-that-is-too-long";
  Build(config);
  EXPECT_EQ(Ask(Header(8, 0), 21), 0);
  EXPECT_EQ(data_, "a-serial-number-that");
  EXPECT_EQ(Ask(Header(8, 0), 5), 0);
  EXPECT_EQ(data_, "a-se");
}

TEST_P(VirtioBlkTest, AnswersMistakes) {
  const struct {
    const char* why;
    std::vector<std::byte> readable;
    std::uint32_t writable;
    int status;
  } kCases[] = {
      {"a header that is too short", BytesOf("short"), 1, 1},
      {"no header at all", {}, 1, 1},
      {"a type that does not exist", Header(77, 0), 1, 2},
      {"half a sector", With(Header(1, 0), 100, 'x'), 1, 1},
      {"half a sector to read", Header(0, 0), 101, 1},
      {"a sector behind the end", Header(0, kDisk / 512), 513, 1},
      {"across the end", With(Header(1, kDisk / 512 - 1), 1024, 'x'), 1, 1},
      {"a sector whose offset overflows", Header(0, 1ULL << 55), 513, 1},
      {"the largest sector", With(Header(1, ~0ULL), 512, 'x'), 1, 1},
      {"a range that is too short", With(Header(11, 0), 8, '\0'), 1, 1},
      {"two ranges", With(Header(11, 0), 32, '\0'), 1, 1},
      {"a range behind the end", Range(13, kDisk / 512, 1, 0), 1, 1},
      {"a range that is too long", Range(13, 0, 0xffffffff, 0), 1, 1},
      {"a flag that does not exist", Range(13, 0, 1, 2), 1, 2},
      {"unmap of a discard", Range(11, 0, 1, 1), 1, 2},
      {"nothing to read", Header(0, 0), 1, 0},
  };
  for (const auto& c : kCases) {
    SCOPED_TRACE(c.why);
    EXPECT_EQ(Ask(c.readable, c.writable), c.status);
  }
  EXPECT_EQ(image_.Contents(), std::string(kDisk, 'i'));
  EXPECT_GT(drive_->stats().read.invalid, 0U);
}

TEST_P(VirtioBlkTest, ARequestWithoutRoomForItsStatusBreaksTheDevice) {
  const std::array<TestBuffer, 1> buffers = {
      TestBuffer{driver_->ram().Put(Header(4, 0)), 16, false}};
  driver_->Send(0, buffers);
  EXPECT_THAT(driver_->needs_reset(), HasSubstr("no room for its status"));
}

TEST_P(VirtioBlkTest, RefusesWritesToAReadonlyDisk) {
  Build({}, /*readonly=*/true);
  EXPECT_NE(disk_->features() & (1U << 5), 0U);
  EXPECT_EQ(Ask(With(Header(1, 0), 512, 'w')), 1);
  EXPECT_EQ(Ask(Range(11, 0, 8, 0)), 2);
  EXPECT_EQ(Ask(Header(0, 0), 513), 0);
}

TEST_P(VirtioBlkTest, ConfigurationDescribesTheDisk) {
  VirtioBlk::Config config;
  config.num_queues = 3;
  config.logical_block_size = 4096;
  config.physical_block_size = 16384;
  config.opt_io_size = 65536;
  Build(config);
  std::array<std::byte, 64> space;
  disk_->ReadConfig(0, space);
  const auto word = [&](std::size_t at) {
    std::uint32_t value = 0;
    std::memcpy(&value, space.data() + at, sizeof value);
    return value;
  };
  EXPECT_EQ(word(0), kDisk / 512);
  EXPECT_EQ(word(12), 254U) << "seg_max";
  EXPECT_EQ(word(20), 4096U);
  EXPECT_EQ(word(24) & 0xff, 2U) << "physical blocks are 2^2 logical ones";
  EXPECT_EQ(word(28), 16U);
  EXPECT_EQ(word(32), 0x30001U) << "write-back, three queues";
  EXPECT_EQ(word(44), 8U);
  EXPECT_EQ(word(60), 0U);
  EXPECT_EQ(Ask(Header(0, 1), 4097), 1) << "not at a multiple of the block size";
  const std::byte off{0};
  disk_->WriteConfig(32, std::span(&off, 1));
  EXPECT_FALSE(drive_->write_cache());
  disk_->WriteConfig(0, std::span(&off, 1));
  driver_->Stop();
  EXPECT_TRUE(drive_->write_cache()) << "a reset undoes what the driver chose";
}

TEST_P(VirtioBlkTest, TellsTheGuestOfErrorsOnTheHost) {
  failing_->errors = {EIO, EIO};
  EXPECT_EQ(Ask(Header(0, 0), 513), 1);
  EXPECT_EQ(Ask(With(Header(1, 0), 512, 'w')), 1);
  EXPECT_EQ(Ask(With(Header(1, 0), 512, 'w')), 0);
  EXPECT_EQ(drive_->stats().read.failed, 1U);
  drive_->on_write_error = block::OnError::kIgnore;
  failing_->errors = {EIO};
  EXPECT_EQ(Ask(With(Header(1, 0), 512, 'w')), 0);
}

TEST_P(VirtioBlkTest, AFullDiskLosesNothing) {
  failing_->errors = {ENOSPC, ENOSPC};
  const std::vector<std::byte> request = With(Header(1, 7), 512, 'w');
  const GuestAddress status = driver_->ram().Allocate(1);
  const std::array<TestBuffer, 2> buffers = {
      TestBuffer{driver_->ram().Put(request), static_cast<std::uint32_t>(request.size()), false},
      TestBuffer{status, 1, true}};
  driver_->Send(0, buffers);
  ASSERT_TRUE(driver_->RunUntil([&] { return told_.size() == 1; }));
  EXPECT_EQ(told_[0].second, block::OnError::kStop);
  disk_->RunAgain();
  ASSERT_TRUE(driver_->RunUntil([&] { return told_.size() == 2; })) << "still no room";
  EXPECT_FALSE(driver_->Take(0));
  disk_->RunAgain();
  ASSERT_TRUE(driver_->RunUntil([&] { return driver_->Take(0).has_value(); }));
  EXPECT_EQ(driver_->ram().Get(status, 1)[0], std::byte{0});
  EXPECT_EQ(image_.Contents().substr(3584, 512), std::string(512, 'w'));
}

TEST_P(VirtioBlkTest, AResetEndsWhatIsUnderWay) {
  for (int i = 0; i < 40; ++i) {
    const std::vector<std::byte> request = With(Header(1, 0), 4096, 'w');
    const std::array<TestBuffer, 2> buffers = {
        TestBuffer{driver_->ram().Put(request), static_cast<std::uint32_t>(request.size()), false},
        TestBuffer{driver_->ram().Allocate(1), 1, true}};
    driver_->Send(0, buffers);
  }
  driver_->Stop();
  ASSERT_TRUE(driver_->Start());
  EXPECT_EQ(Ask(Header(0, 0), 513), 0);
}

TEST_P(VirtioBlkTest, APageThatARequestReadsIntoBecomesPrivateOnlyAfterIt) {
  RamBlock& ram = driver_->ram().block();
  ASSERT_TRUE(ram.EnableConversion(MakeGuardEngine(ram.host_view())));
  GuestConverter converter(driver_->ram().space());
  constexpr std::uint32_t kSize = 2 * kPageSize;
  const GuestAddress data = driver_->ram().Allocate(kSize, kPageSize);
  const auto header = driver_->ram().Put(Header(0, 0));
  const GuestAddress status = driver_->ram().Allocate(1);
  const std::array<TestBuffer, 3> buffers = {
      TestBuffer{header, 16, false}, TestBuffer{data, kSize, true}, TestBuffer{status, 1, true}};

  failing_->hold = true;
  driver_->Send(0, buffers);
  driver_->Kick(0);
  ASSERT_TRUE(driver_->RunUntil([&] { return failing_->held() == 1; }));
  auto outcome = converter.Convert(data, kSize, MemoryAttribute::kPrivate);
  ASSERT_TRUE(outcome) << outcome.error().ToString();
  EXPECT_EQ(outcome->busy, data) << "refused, with the first busy page";

  failing_->LetGo();
  ASSERT_TRUE(driver_->RunUntil([&] { return driver_->Take(0).has_value(); }));
  EXPECT_EQ(driver_->ram().Get(status, 1)[0], std::byte{0}) << "the request completes";
  EXPECT_THAT(driver_->ram().Get(data, kSize), Each(std::byte{'i'}));

  outcome = converter.Convert(data, kSize, MemoryAttribute::kPrivate);
  ASSERT_TRUE(outcome) << outcome.error().ToString();
  EXPECT_EQ(outcome->changed_pages, 2U) << "the retry works";
  driver_->Send(0, buffers);
  driver_->Kick(0);
  ASSERT_TRUE(driver_->RunUntil([&] { return !driver_->needs_reset().empty(); }));
  EXPECT_THAT(driver_->needs_reset(), HasSubstr("is private to the guest"));
  EXPECT_EQ(converter.Convert(data, kSize, MemoryAttribute::kShared)->changed_pages, 2U);
  EXPECT_THAT(driver_->ram().Get(data, kSize), Each(std::byte{'i'})) << "nobody has written";
}

TEST_P(VirtioBlkTest, TellsTheGuestOfANewSize) {
  ASSERT_TRUE(drive_->medium()->Resize(2 * kDisk));
  disk_->DriveResized();
  ASSERT_TRUE(driver_->RunUntil([&] { return driver_->config_changes() == 1; }));
  EXPECT_EQ(Ask(Header(0, 2 * kDisk / 512 - 1), 513), 0);
}

}  // namespace
}  // namespace holdfast::devices::virtio
