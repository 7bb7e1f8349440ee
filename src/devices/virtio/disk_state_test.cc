// SPDX-License-Identifier: Apache-2.0
// Disks whose machine is saved in the midst of requests.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/event_loop.h"
#include "devices/pci/test_services.h"
#include "devices/scsi/scsi_models.h"
#include "devices/virtio/state_test_support.h"
#include "devices/virtio/test_driver.h"
#include "devices/virtio/virtio_blk.h"
#include "devices/virtio/virtio_scsi.h"

namespace holdfast::devices::virtio {
namespace {

using namespace testing;
using ::testing::HasSubstr;

constexpr std::size_t kSector = 512;
constexpr std::size_t kSectors = 64;

// A disk in memory that does its requests when the loop comes to them, and has no room for the
// first few writes.
class MemoryDisk final : public block::BlockDevice {
 public:
  const std::string& id() const noexcept override { return id_; }
  std::uint64_t size() const noexcept override { return bytes.size(); }
  std::uint32_t block_size() const noexcept override { return kSector; }
  bool readonly() const noexcept override { return false; }
  bool supports(block::Operation) const noexcept override { return true; }
  block::NodeInfo info() const override { return {.driver = "memory", .filename = {}}; }
  Status PrepareFor(std::uint32_t, bool) override { return {}; }
  void Release() noexcept override {}
  Status Resize(std::uint64_t size) override {
    bytes.resize(size);
    return {};
  }
  Result<std::unique_ptr<Submitter>> MakeSubmitter(EventLoop& loop) override {
    return Result<std::unique_ptr<Submitter>>(std::make_unique<Worker>(*this, loop));
  }
  std::string bytes = std::string(kSectors * kSector, 'i');
  unsigned errors = 0;

 private:
  class Worker final : public Submitter {
   public:
    Worker(MemoryDisk& disk, EventLoop& loop) : disk_(disk), loop_(loop) {}
    ~Worker() override { Drain(); }
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;
    void Submit(block::Request request) override { waiting_.push_back(std::move(request)); }
    void Kick() override {
      loop_.Post([this, alive = std::weak_ptr<int>(alive_)] {
        if (!alive.expired()) Drain();
      });
    }
    void Drain() override {
      for (block::Request& request : std::exchange(waiting_, {})) request.done(Do(request));
      EndBatch();
    }

   private:
    int Do(const block::Request& request) {
      const bool write = request.operation == block::Operation::kWrite;
      if (write && disk_.errors > 0) {
        --disk_.errors;
        return ENOSPC;
      }
      char* at = disk_.bytes.data() + request.offset;
      for (const iovec& piece : request.buffers) {
        write ? std::memcpy(at, piece.iov_base, piece.iov_len)
              : std::memcpy(piece.iov_base, at, piece.iov_len);
        at += piece.iov_len;
      }
      return 0;
    }
    MemoryDisk& disk_;
    EventLoop& loop_;
    std::vector<block::Request> waiting_;
    const std::shared_ptr<int> alive_ = std::make_shared<int>();
  };
  const std::string id_ = "memory";
};

std::vector<std::byte> WriteRequest(std::uint64_t sector, char fill) {
  std::vector<std::byte> request(16 + kSector, static_cast<std::byte>(fill));
  const std::uint32_t type[2] = {1, 0};
  std::memcpy(request.data(), type, sizeof type);
  std::memcpy(request.data() + 8, &sector, sizeof sector);
  return request;
}

class DiskState : public ::testing::TestWithParam<bool> {
 protected:
  std::unique_ptr<VirtioBlk> Make() {
    drives_.push_back(std::make_unique<block::Drive>(
        "drive0", &medium_, [](const block::Drive&, block::Operation, int, block::OnError) {}));
    block::Drive& drive = *drives_.back();
    drive.on_write_error = block::OnError::kStop;
    if (limits_) drive.throttle()->Set(*limits_);
    EXPECT_TRUE(drive.Attach({.name = "disk"}));
    return std::make_unique<VirtioBlk>(DeviceThread(*loop_), drive, VirtioBlk::Config());
  }
  void Start(Device& disk) {
    std::uint64_t features = ~0ULL;
    if (!GetParam()) features &= ~std::uint64_t{kFeatureRingPacked};
    driver_ = std::make_unique<TestDriver>(disk, *loop_, features);
    ASSERT_TRUE(driver_->Start(16));
  }
  // Writes sector `sector`, and remembers where the status will be.
  void Write(std::uint64_t sector, char fill) {
    const std::vector<std::byte> request = WriteRequest(sector, fill);
    const GuestAddress status = driver_->ram().Put(std::array{std::byte{0xaa}});
    const TestBuffer buffers[] = {
        {driver_->ram().Put(request), static_cast<std::uint32_t>(request.size()), false},
        {status, 1, true}};
    statuses_[driver_->Send(0, buffers)] = status;
    expected_.replace(sector * kSector, kSector, std::string(kSector, fill));
  }
  void TakeAnswers() {
    while (const auto used = driver_->Take(0)) ++answers_[used->id];
  }
  // Every request was answered once, and done.
  void ExpectAllDone() {
    const auto all = [this] {
      TakeAnswers();
      return answers_.size() == statuses_.size();
    };
    ASSERT_TRUE(driver_->RunUntil(all)) << answers_.size() << " of " << statuses_.size();
    for (const auto& [id, status] : statuses_) {
      EXPECT_EQ(answers_[id], 1U) << id;
      EXPECT_EQ(driver_->ram().Load<std::uint8_t>(status), 0) << id;
    }
    EXPECT_TRUE(medium_.bytes == expected_);
    EXPECT_EQ(driver_->needs_reset(), "");
  }

  const std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  MemoryDisk medium_;
  std::optional<object::ThrottleLimits> limits_;
  std::vector<std::unique_ptr<block::Drive>> drives_;
  std::unique_ptr<TestDriver> driver_;
  std::map<std::uint16_t, GuestAddress> statuses_;
  std::map<std::uint16_t, unsigned> answers_;
  std::string expected_ = medium_.bytes;
};

INSTANTIATE_TEST_SUITE_P(Rings, DiskState, ::testing::Bool(),
                         [](const auto& packed) { return packed.param ? "Packed" : "Split"; });

TEST_P(DiskState, AStopWaitsForTheHost) {
  const auto disk = Make();
  ASSERT_NO_FATAL_FAILURE(Start(*disk));
  for (unsigned i = 0; i < 4; ++i) Write(i, 'a');
  driver_->SetRunning(false);
  TakeAnswers();
  EXPECT_EQ(answers_.size(), 4U);
  driver_->SetRunning(true);
  ASSERT_NO_FATAL_FAILURE(ExpectAllDone());
  driver_.reset();
}

TEST_P(DiskState, NothingIsWrittenWhileTheMachineStands) {
  const auto disk = Make();
  ASSERT_NO_FATAL_FAILURE(Start(*disk));
  driver_->SetRunning(false);
  Write(0, 'b');
  const std::vector<std::byte> before(driver_->ram().bytes().begin(), driver_->ram().bytes().end());
  driver_->Kick(0);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(loop_->RunOnce(std::chrono::milliseconds(0)));
  EXPECT_TRUE(std::ranges::equal(before, driver_->ram().bytes()));
  driver_->SetRunning(true);
  ASSERT_NO_FATAL_FAILURE(ExpectAllDone());
  driver_.reset();
}

TEST_P(DiskState, ThrottledRequestsAreDoneOnce) {
  limits_.emplace();
  (*limits_)[object::ThrottleKind::kIopsTotal].average = 1;
  const auto disk = Make();
  const auto other = Make();
  ASSERT_NO_FATAL_FAILURE(Start(*disk));
  for (unsigned i = 0; i < 4; ++i) Write(i, 'c');
  const Status moved = driver_->MoveTo(*other);
  ASSERT_TRUE(moved) << moved.error().ToString();
  ASSERT_NO_FATAL_FAILURE(ExpectAllDone());
  driver_.reset();
}

// The requests behind those that wait are answered first, which overwrites descriptors of packed
// rings.
TEST_P(DiskState, RequestsThatStoppedTheMachineAreDoneElsewhere) {
  for (const bool move : {false, true}) {
    SCOPED_TRACE(move);
    statuses_.clear();
    answers_.clear();
    const auto disk = Make();
    const auto other = Make();
    ASSERT_NO_FATAL_FAILURE(Start(*disk));
    medium_.errors = 2;
    for (unsigned i = 0; i < 5; ++i) Write(i, 'd');
    driver_->SetRunning(false);
    TakeAnswers();
    EXPECT_EQ(answers_.size(), 3U);
    if (move) {
      const Status moved = driver_->MoveTo(*other);
      ASSERT_TRUE(moved) << moved.error().ToString();
    } else {
      driver_->SetRunning(true);
    }
    for (unsigned i = 8; i < 20; ++i) {
      Write(i, 'e');
      driver_->Kick(0);
      ASSERT_NO_FATAL_FAILURE(ExpectAllDone());
      statuses_.clear();
      answers_.clear();
    }
    driver_.reset();
  }
}

TEST_P(DiskState, AnotherDiskIsRefused) {
  const auto disk = Make();
  ASSERT_NO_FATAL_FAILURE(Start(*disk));
  const auto saved = driver_->SaveDevice();
  ASSERT_TRUE(saved);
  const auto visit = [&](state::Fields& fields) { disk->VisitState(fields); };
  ExpectSturdy(visit, *saved);
  medium_.bytes.resize(8 * kSector);
  const Status loaded = LoadState(visit, *saved);
  ASSERT_FALSE(loaded);
  EXPECT_THAT(loaded.error().ToString(), HasSubstr("32768 bytes and here it has 4096"));
  driver_.reset();
}

// ---- SCSI ---------------------------------------------------------------------------------------

class ScsiState : public ::testing::Test {
 protected:
  struct Adapter {
    explicit Adapter(ScsiState& test)
        : environment{*test.loop_,
                      test.memory_.space(),
                      test.services_,
                      backends,
                      [](std::string_view, const auto&) {},
                      nullptr,
                      1,
                      &buses},
          adapter(DeviceThread(*test.loop_), {}, &buses, "scsi0.0"),
          drive("disk", &test.medium_,
                [](const block::Drive&, block::Operation, int, block::OnError) {}) {
      backends.drive = [this](std::string_view) { return &drive; };
      drive.on_write_error = block::OnError::kStop;
      const DeviceModel& model = test.cdrom_ ? scsi::kScsiCd : scsi::kScsiHd;
      auto made = model.attach(environment, "d", "", *object::ParseKeyValues("drive=disk"));
      EXPECT_TRUE(made) << made.error().ToString();
      if (made) disk = *std::move(made);
    }
    Backends backends;
    ChildBuses buses;
    DeviceEnvironment environment;
    VirtioScsi adapter;
    block::Drive drive;
    std::unique_ptr<ChildDevice> disk;
  };
  // Sends a command with `out` bytes. @return where the answer will be
  GuestAddress Send(const std::vector<std::uint8_t>& cdb, std::size_t out) {
    std::vector<std::byte> request(51 + out, std::byte{'w'});
    std::fill_n(request.begin(), 51, std::byte{0});
    request[0] = std::byte{1};
    request[2] = std::byte{0x40};
    std::memcpy(request.data() + 19, cdb.data(), cdb.size());
    const GuestAddress answer = driver_->ram().Allocate(108);
    const TestBuffer buffers[] = {
        {driver_->ram().Put(request), static_cast<std::uint32_t>(request.size()), false},
        {answer, 108, true}};
    driver_->Send(2, buffers);
    return answer;
  }
  // Status and sense key of an answer that has come.
  std::pair<int, int> Answer(GuestAddress at) {
    const bool there = driver_->RunUntil([this] { return driver_->Take(2).has_value(); });
    EXPECT_TRUE(there);
    return {driver_->ram().Load<std::uint8_t>(at + 10), driver_->ram().Load<std::uint8_t>(at + 14)};
  }

  bool cdrom_ = false;
  TestMemory memory_;
  pci::testing::FakeServices services_;
  const std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
  MemoryDisk medium_;
  std::unique_ptr<TestDriver> driver_;
};

TEST_F(ScsiState, CommandsThatStoppedTheMachineAndUnitAttentionGoAlong) {
  Adapter one(*this);
  Adapter two(*this);
  driver_ = std::make_unique<TestDriver>(one.adapter, *loop_, ~std::uint64_t{kFeatureRingPacked});
  ASSERT_TRUE(driver_->Start(16));
  EXPECT_EQ(Answer(Send({0x00, 0, 0, 0, 0, 0}, 0)), std::pair(2, 6));  // it was switched on
  medium_.errors = 1;
  const GuestAddress failed = Send({0x2a, 0, 0, 0, 0, 3, 0, 0, 1, 0}, kSector);
  driver_->SetRunning(false);
  EXPECT_FALSE(driver_->Take(2));
  const auto visit = [&](state::Fields& fields) { two.disk->VisitState(fields); };
  const auto saved = SaveState([&](state::Fields& fields) { one.disk->VisitState(fields); });
  const Status moved = driver_->MoveTo(two.adapter, [&] { EXPECT_TRUE(LoadState(visit, saved)); });
  ASSERT_TRUE(moved) << moved.error().ToString();
  EXPECT_EQ(Answer(failed), std::pair(0, 0));
  EXPECT_EQ(medium_.bytes.substr(3 * kSector, kSector), std::string(kSector, 'w'));
  EXPECT_FALSE(driver_->Take(2));
  driver_->SetRunning(false);
  ExpectSturdy(visit, saved);
  driver_.reset();
}

TEST_F(ScsiState, ATrayStaysOpenAndLocked) {
  cdrom_ = true;
  Adapter one(*this);
  Adapter two(*this);
  driver_ = std::make_unique<TestDriver>(one.adapter, *loop_, ~std::uint64_t{kFeatureRingPacked});
  ASSERT_TRUE(driver_->Start(16));
  (void)Answer(Send({0x00, 0, 0, 0, 0, 0}, 0));
  EXPECT_EQ(Answer(Send({0x1b, 0, 0, 0, 2, 0}, 0)).first, 0);  // opens
  EXPECT_EQ(Answer(Send({0x1e, 0, 0, 0, 1, 0}, 0)).first, 0);  // prevents removal
  driver_->SetRunning(false);
  const auto saved = SaveState([&](state::Fields& fields) { one.disk->VisitState(fields); });
  const Status moved = driver_->MoveTo(two.adapter, [&] {
    EXPECT_TRUE(LoadState([&](state::Fields& fields) { two.disk->VisitState(fields); }, saved));
  });
  ASSERT_TRUE(moved) << moved.error().ToString();
  EXPECT_TRUE(two.drive.tray_locked());
  EXPECT_EQ(Answer(Send({0x00, 0, 0, 0, 0, 0}, 0)), std::pair(2, 2));  // not ready
  driver_.reset();
}

}  // namespace
}  // namespace holdfast::devices::virtio
