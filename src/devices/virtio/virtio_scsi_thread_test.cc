// SPDX-License-Identifier: Apache-2.0
// virtio-scsi on an I/O thread: what the main thread does to disks while the thread works on them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <string>
#include <thread>

#include "devices/block/block_graph.h"
#include "devices/block/test_support.h"
#include "devices/pci/test_services.h"
#include "devices/scsi/scsi_models.h"
#include "devices/virtio/test_driver.h"
#include "devices/virtio/virtio_scsi.h"

namespace holdfast::devices::virtio {
namespace {

constexpr std::size_t kDisk = 1 << 20;
constexpr std::uint32_t kHead = 51;
constexpr std::uint32_t kAnswer = 108;

// What the main thread has; the driver and its queues live on the I/O thread, as a guest's kicks
// do.
class ScsiThreadTest : public ::testing::Test {
 protected:
  void SetUp() override {
    backends_.drive = [this](std::string_view id) { return graph_.Find(id); };
    EventLoop* const loop = *io_.Loop();
    thread_ = std::make_unique<DeviceThread>(*loop, io_);
    VirtioScsi::Config config;
    config.num_queues = 2;
    adapter_ = std::make_unique<VirtioScsi>(*thread_, config, &buses_, "scsi0.0");
    thread_->Run([&] {
      driver_ = std::make_unique<TestDriver>(*adapter_, *loop);
      EXPECT_TRUE(driver_->Start());
      head_ = driver_->ram().Allocate(kHead);
      answer_ = driver_->ram().Allocate(kAnswer + 2048);
    });
  }
  void TearDown() override {
    disk_.reset();
    thread_->Run([this] { driver_.reset(); });
    adapter_.reset();
    thread_.reset();
  }
  void Plug(const DeviceModel& model, const char* words, const char* filename) {
    const std::string id = "node" + std::to_string(next_++);
    block::NodeOptions node;
    node.filename = filename;
    node.node_name = id;
    node.read_only = model.name == "scsi-cd";
    auto added = graph_.AddNode(node);
    ASSERT_TRUE(added) << added.error().ToString();
    auto drive = graph_.AddDrive("drive", *added);
    ASSERT_TRUE(drive);
    drive_ = *drive;
    auto made = model.attach(environment_, "d", "scsi0.0",
                             *object::ParseKeyValues("drive=drive," + std::string(words)));
    ASSERT_TRUE(made) << made.error().ToString();
    disk_ = *std::move(made);
  }
  // A command on request queue `queue`. @return the response and the status
  std::pair<int, int> Ask(unsigned queue, const std::vector<std::uint8_t>& cdb, std::uint32_t in) {
    std::array<std::byte, kHead> head{};
    head[0] = std::byte{1};
    head[2] = std::byte{0x40};
    std::memcpy(head.data() + 19, cdb.data(), cdb.size());
    thread_->Run([&] {
      std::ranges::copy(
          head, driver_->ram().bytes().begin() + static_cast<std::ptrdiff_t>(head_.value()));
      const std::array<TestBuffer, 2> buffers = {TestBuffer{head_, kHead, false},
                                                 TestBuffer{answer_, kAnswer + in, true}};
      driver_->Send(queue, buffers);
    });
    const auto deadline = EventLoop::Clock::now() + std::chrono::minutes(1);
    bool done = false;
    while (!done && EventLoop::Clock::now() < deadline) {
      thread_->Run([&] { done = driver_->Take(queue).has_value(); });
    }
    if (!done) return {-1, -1};
    std::pair<int, int> result;
    thread_->Run([&] {
      const std::vector<std::byte> bytes = driver_->ram().Get(answer_, kAnswer);
      result = {std::to_integer<int>(bytes[11]), std::to_integer<int>(bytes[10])};
    });
    return result;
  }

  block::TestImage image_{kDisk, 'i'};
  block::TestImage other_{kDisk / 2, 'o'};
  std::unique_ptr<EventLoop> main_ = *EventLoop::Create();
  object::IoThread io_{"io0"};
  block::BlockGraph graph_{*main_};
  Backends backends_;
  TestMemory memory_;
  pci::testing::FakeServices services_;
  ChildBuses buses_;
  DeviceEnvironment environment_{.loop = *main_,
                                 .memory = memory_.space(),
                                 .pci = services_,
                                 .backends = backends_,
                                 .emit = {},
                                 .buses = &buses_};
  std::unique_ptr<DeviceThread> thread_;
  std::unique_ptr<VirtioScsi> adapter_;
  std::unique_ptr<ChildDevice> disk_;
  std::unique_ptr<TestDriver> driver_;
  GuestAddress head_;
  GuestAddress answer_;
  block::Drive* drive_ = nullptr;
  unsigned next_ = 0;
};

const std::vector<std::uint8_t> kReady = {scsi::kTestUnitReady, 0, 0, 0, 0, 0};
const std::vector<std::uint8_t> kReadBlock = {scsi::kRead10, 0, 0, 0, 0, 1, 0, 0, 1, 0};

TEST_F(ScsiThreadTest, ServesAllQueuesThere) {
  ASSERT_NO_FATAL_FAILURE(Plug(scsi::kScsiHd, "", image_.path().c_str()));
  Ask(2, kReady, 0);
  const std::pair<int, int> good{0, 0};
  for (const unsigned queue : {2U, 3U, 2U}) {
    EXPECT_EQ(Ask(queue, kReadBlock, 512), good) << "queue " << queue;
  }
}

TEST_F(ScsiThreadTest, TheThreadStaysAsLongAsTheAdapterOrADisk) {
  ASSERT_NO_FATAL_FAILURE(Plug(scsi::kScsiHd, "", image_.path().c_str()));
  thread_->Run([this] { driver_.reset(); });
  adapter_.reset();
  const DeviceThread mine = *thread_;
  thread_ = std::make_unique<DeviceThread>(mine.loop());
  EXPECT_FALSE(io_.CanDelete());
  disk_.reset();
  thread_ = std::make_unique<DeviceThread>(mine);
}

// The guest reads without pause; each of its requests gets an answer, whatever there is just now.
TEST_F(ScsiThreadTest, DisksAndMediaComeAndGoUnderLoad) {
  ASSERT_NO_FATAL_FAILURE(Plug(scsi::kScsiCd, "", image_.path().c_str()));
  block::NodeOptions node;
  node.filename = other_.path();
  node.node_name = "other";
  node.read_only = true;
  block::BlockDevice* const other = *graph_.AddNode(node);
  block::BlockDevice* const first = drive_->medium();
  std::atomic<unsigned> answers = 0;
  const std::jthread guest([&](const std::stop_token& end) {
    while (!end.stop_requested()) {
      const auto [response, status] = Ask(2, kReadBlock, 2048);
      EXPECT_TRUE(response == 0 || response == 3) << response;
      EXPECT_TRUE(status == 0 || status == 2) << status;
      ++answers;
    }
  });
  const auto wait_for_answers = [&](unsigned more) {
    const unsigned until = answers + more;
    for (unsigned now = answers; now < until; now = answers) std::this_thread::yield();
  };
  for (unsigned round = 0; round < 5; ++round) {
    for (block::BlockDevice* medium : {other, static_cast<block::BlockDevice*>(nullptr), first}) {
      ASSERT_TRUE(drive_->SetMedium(medium));
      wait_for_answers(2);
    }
    drive_->user()->run_again();
    drive_->user()->resized();
    disk_.reset();
    wait_for_answers(1);
    auto made =
        scsi::kScsiCd.attach(environment_, "d", "scsi0.0", *object::ParseKeyValues("drive=drive"));
    ASSERT_TRUE(made) << made.error().ToString();
    disk_ = *std::move(made);
  }
}

TEST(DeviceThreadTest, NamesAThreadThatIsNotThere) {
  const std::unique_ptr<EventLoop> loop = *EventLoop::Create();
  Backends backends;
  TestMemory memory;
  pci::testing::FakeServices services;
  const DeviceEnvironment environment{
      .loop = *loop, .memory = memory.space(), .pci = services, .backends = backends, .emit = {}};
  const auto found = DeviceThread::Find(environment, "virtio-scsi-pci", "io9");
  ASSERT_FALSE(found);
  EXPECT_EQ(found.error().message(), "Property 'virtio-scsi-pci.iothread' can't find value 'io9'");
  EXPECT_EQ(&DeviceThread::Find(environment, "virtio-scsi-pci", "")->loop(), loop.get());
}

}  // namespace
}  // namespace holdfast::devices::virtio
