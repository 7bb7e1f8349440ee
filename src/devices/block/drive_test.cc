// SPDX-License-Identifier: Apache-2.0
#include "devices/block/drive.h"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <vector>

#include "devices/block/null_device.h"
#include "devices/block/test_support.h"

namespace holdfast::devices::block {
namespace {

// Keeps what comes through.
class RecordingDevice final : public BlockDevice {
 public:
  const std::string& id() const noexcept override { return id_; }
  std::uint64_t size() const noexcept override { return 1 << 20; }
  std::uint32_t block_size() const noexcept override { return 512; }
  bool readonly() const noexcept override { return false; }
  bool supports(Operation) const noexcept override { return true; }
  NodeInfo info() const override { return {.driver = "test", .filename = ""}; }
  Status PrepareFor(std::uint32_t, bool) override { return {}; }
  void Release() noexcept override {}
  Status Resize(std::uint64_t) override { return {}; }
  Result<std::unique_ptr<Submitter>> MakeSubmitter(EventLoop& loop) override {
    HF_TRY(auto below, null_.MakeSubmitter(loop));
    return Result<std::unique_ptr<Submitter>>(std::make_unique<Recorder>(*this, std::move(below)));
  }
  std::vector<Request> seen;

 private:
  class Recorder final : public Submitter {
   public:
    Recorder(RecordingDevice& device, std::unique_ptr<Submitter> below)
        : device_(device), below_(std::move(below)) {}
    void Submit(Request request) override {
      device_.seen.push_back(request);
      below_->Submit(std::move(request));
    }
    void Kick() override { below_->Kick(); }
    void Drain() override { below_->Drain(); }

   private:
    RecordingDevice& device_;
    std::unique_ptr<Submitter> below_;
  };
  std::string id_ = "rec";
  NullDevice null_{"null", 1 << 20, false, false};
};

struct Fixture {
  Fixture() : loop(*EventLoop::Create()), drive("d", &device, {}) {}
  std::unique_ptr<BlockDevice::Submitter> Submitter() { return *drive.MakeSubmitter(*loop); }
  std::unique_ptr<EventLoop> loop;
  RecordingDevice device;
  Drive drive;
};

TEST(Drive, MakesWritesDurableWhileTheWriteCacheIsOff) {
  Fixture fixture;
  const auto submitter = fixture.Submitter();
  TestBuffer buffer(512, 'x');
  const std::array<iovec, 1> pieces = {buffer.piece(0, 512)};
  EXPECT_EQ(DoIo(*fixture.loop, *submitter, Operation::kWrite, 0, pieces), 0);
  fixture.drive.set_write_cache(false);
  EXPECT_EQ(DoIo(*fixture.loop, *submitter, Operation::kWrite, 0, pieces), 0);
  EXPECT_EQ(DoIo(*fixture.loop, *submitter, Operation::kWriteZeroes, 0, {}), 0);
  ASSERT_EQ(fixture.device.seen.size(), 3U);
  EXPECT_FALSE(fixture.device.seen[0].fua);
  EXPECT_TRUE(fixture.device.seen[1].fua);
  EXPECT_TRUE(fixture.device.seen[2].fua);
}

TEST(Drive, FindsWritesOfZeroes) {
  Fixture fixture;
  fixture.drive.detect_zeroes = DetectZeroes::kUnmap;
  const auto submitter = fixture.Submitter();
  TestBuffer buffer(10000);
  const std::array<iovec, 2> pieces = {buffer.piece(0, 512), buffer.piece(512, 9216)};
  EXPECT_EQ(DoIo(*fixture.loop, *submitter, Operation::kWrite, 512, pieces), 0);
  buffer.data()[9727] = 'x';
  EXPECT_EQ(DoIo(*fixture.loop, *submitter, Operation::kWrite, 512, pieces), 0);
  ASSERT_EQ(fixture.device.seen.size(), 2U);
  EXPECT_EQ(fixture.device.seen[0].operation, Operation::kWriteZeroes);
  EXPECT_TRUE(fixture.device.seen[0].may_unmap);
  EXPECT_EQ(fixture.device.seen[0].length, 9728U);
  EXPECT_EQ(fixture.device.seen[1].operation, Operation::kWrite);
}

TEST(Drive, HoldsRequestsBackByItsLimitsButNoFlush) {
  Fixture fixture;
  object::ThrottleLimits limits;
  limits[object::ThrottleKind::kIopsTotal] = {.average = 50};
  fixture.drive.throttle()->Set(limits);
  const auto submitter = fixture.Submitter();
  const auto start = std::chrono::steady_clock::now();
  unsigned done = 0;
  for (int i = 0; i < 20; ++i) {
    submitter->Submit(
        {.operation = Operation::kRead, .length = 512, .buffers = {}, .done = [&](int) {
           ++done;
         }});
  }
  submitter->Kick();
  EXPECT_EQ(
      Do(*fixture.loop, *submitter, {.operation = Operation::kFlush, .buffers = {}, .done = {}}),
      0);
  EXPECT_LT(done, 20U);
  while (done < 20) ASSERT_TRUE(fixture.loop->RunOnce(std::chrono::seconds(60)));
  // Six go at once (a tenth of a second's worth), the others 20 ms apart.
  EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(250));
}

TEST(Drive, EndsWhatIsHeldBackOnDrain) {
  Fixture fixture;
  object::ThrottleLimits limits;
  limits[object::ThrottleKind::kBpsTotal] = {.average = 1};
  fixture.drive.throttle()->Set(limits);
  const auto submitter = fixture.Submitter();
  unsigned done = 0;
  for (int i = 0; i < 5; ++i) {
    submitter->Submit(
        {.operation = Operation::kRead, .length = 4096, .buffers = {}, .done = [&](int) {
           ++done;
         }});
  }
  submitter->Kick();
  submitter->Drain();
  EXPECT_EQ(done, 5U);
}

TEST(Drive, DecidesWhatAnErrorMeans) {
  const struct {
    Operation operation;
    int error;
    OnError on_read;
    OnError on_write;
    OnError want;
  } kCases[] = {
      {Operation::kRead, EIO, OnError::kReport, OnError::kStop, OnError::kReport},
      {Operation::kRead, EIO, OnError::kIgnore, OnError::kStop, OnError::kIgnore},
      {Operation::kWrite, EIO, OnError::kStop, OnError::kEnospc, OnError::kReport},
      {Operation::kWrite, ENOSPC, OnError::kReport, OnError::kEnospc, OnError::kStop},
      {Operation::kFlush, EIO, OnError::kReport, OnError::kStop, OnError::kStop},
  };
  for (const auto& c : kCases) {
    NullDevice medium("n", 512, false, false);
    std::vector<OnError> told;
    Drive drive("d", &medium,
                [&](Drive&, Operation, int, OnError outcome) { told.push_back(outcome); });
    drive.on_read_error = c.on_read;
    drive.on_write_error = c.on_write;
    EXPECT_EQ(drive.Failed(c.operation, c.error), c.want);
    EXPECT_EQ(told, std::vector<OnError>{c.want});
  }
}

}  // namespace
}  // namespace holdfast::devices::block
