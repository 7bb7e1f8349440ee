// SPDX-License-Identifier: Apache-2.0
// vhost-user devices in front of the distribution's back ends.
#include "devices/virtio/vhost_user_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "devices/vhost_user/test_backend.h"
#include "devices/virtio/test_driver.h"
#include "devices/virtio/vhost_user_models.h"

namespace holdfast::devices::virtio {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using vhost_user::TestBackend;

constexpr std::uint32_t kSector = 512;
constexpr std::uint32_t kRead = 0;
constexpr std::uint32_t kWrite = 1;
constexpr std::uint64_t kDiskSize = 8ULL << 20;

std::vector<std::byte> Request(std::uint32_t type, std::uint64_t sector,
                               std::span<const std::byte> data = {}) {
  std::vector<std::byte> bytes(16);
  std::memcpy(bytes.data(), &type, sizeof type);
  std::memcpy(bytes.data() + 8, &sector, sizeof sector);
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}

class VhostUserTest : public ::testing::Test {
 protected:
  VhostUserTest()
      : folder_(std::filesystem::temp_directory_path() /
                ("vhost_user_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_ / "share");
    auto loop = EventLoop::Create();
    if (loop) loop_ = *std::move(loop);
  }
  ~VhostUserTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  void SetUp() override { ASSERT_NE(loop_, nullptr); }

  std::string Path(const char* name) const { return (folder_ / name).string(); }
  void MakeImage() const {
    std::ofstream(Path("image")) << "first";
    std::filesystem::resize_file(Path("image"), kDiskSize);
  }
  vhost_user::Endpoint Endpoint() const {
    return vhost_user::Endpoint(Path("socket"), std::chrono::milliseconds(20));
  }

  const std::filesystem::path folder_;
  std::unique_ptr<EventLoop> loop_;
};

class VhostUserBlkTest : public VhostUserTest {
 protected:
  void SetUp() override {
    VhostUserTest::SetUp();
    if (::access(vhost_user::kStorageDaemon, X_OK) != 0) {
      GTEST_SKIP() << vhost_user::kStorageDaemon << " is not installed";
    }
    MakeImage();
    backend_ = std::make_unique<TestBackend>(
        vhost_user::StorageDaemonCommand(Path("image"), Path("socket")), Path("socket"));
    ASSERT_TRUE(backend_->Start());
  }

  Result<std::unique_ptr<VhostUserDevice>> MakeDisk(VhostUserBlkConfig config = {}) {
    return MakeVhostUserBlk(*loop_, memory_.space(), Endpoint(), config);
  }

  TestMemory memory_{1 << 20};  // what a device is made with; drivers bring their own
  std::unique_ptr<TestBackend> backend_;
};

TEST_F(VhostUserBlkTest, HasTheBackEndsSizeAndQueues) {
  const auto disk = MakeDisk();
  ASSERT_TRUE(disk) << disk.error().ToString();
  std::uint64_t sectors = 0;
  (*disk)->ReadConfig(0, std::as_writable_bytes(std::span(&sectors, 1)));
  EXPECT_EQ(sectors, kDiskSize / kSector);
  EXPECT_EQ((*disk)->queue_sizes().size(), 2U);
  std::uint16_t queues = 0;
  (*disk)->ReadConfig(34, std::as_writable_bytes(std::span(&queues, 1)));
  EXPECT_EQ(queues, 2);
  EXPECT_EQ((*disk)->queue_sizes()[0], 128);
  std::uint32_t beyond = 1;
  (*disk)->ReadConfig(4000, std::as_writable_bytes(std::span(&beyond, 1)));
  EXPECT_EQ(beyond, 0U);
}

TEST_F(VhostUserBlkTest, RefusesMoreQueuesThanThereAre) {
  const auto disk = MakeDisk({.num_queues = 5});
  ASSERT_FALSE(disk);
  EXPECT_THAT(disk.error().message(), HasSubstr("serves 2 queues, not 5"));
}

TEST_F(VhostUserBlkTest, ReadsAndWritesThroughEveryQueueAndAfterAReset) {
  auto disk = MakeDisk();
  ASSERT_TRUE(disk) << disk.error().ToString();
  for (int round = 0; round < 2; ++round) {
    SCOPED_TRACE(round);
    TestDriver driver(**disk, *loop_);
    ASSERT_TRUE(driver.Start());
    for (const unsigned queue : {0U, 1U}) {
      const std::string text(kSector, static_cast<char>('a' + round * 2 + static_cast<int>(queue)));
      const auto written = driver.Ask(queue, Request(kWrite, 3 + queue, BytesOf(text)), 1);
      ASSERT_TRUE(written) << written.error().ToString();
      EXPECT_EQ(written->data.at(0), std::byte{0});
      const auto read = driver.Ask(queue, Request(kRead, 3 + queue), kSector + 1);
      ASSERT_TRUE(read) << read.error().ToString();
      EXPECT_EQ(read->data.at(kSector), std::byte{0});
      EXPECT_EQ(std::vector(read->data.begin(), read->data.begin() + kSector), BytesOf(text));
    }
    EXPECT_EQ(driver.needs_reset(), "");
  }
  std::string first(5, '\0');
  std::ifstream(Path("image")).read(first.data(), 5);
  EXPECT_EQ(first, "first");
}

TEST_F(VhostUserBlkTest, GoesOnWithAnotherBackEndWhereItWasSaved) {
  auto disk = MakeDisk();
  ASSERT_TRUE(disk) << disk.error().ToString();
  EXPECT_TRUE((*disk)->Migratable());
  std::filesystem::copy(Path("image"), Path("copy"));
  TestBackend second(vhost_user::StorageDaemonCommand(Path("copy"), Path("second")),
                     Path("second"));
  ASSERT_TRUE(second.Start());
  auto other = MakeVhostUserBlk(*loop_, memory_.space(),
                                vhost_user::Endpoint(Path("second"), std::chrono::milliseconds(20)),
                                VhostUserBlkConfig());
  ASSERT_TRUE(other) << other.error().ToString();
  TestDriver driver(**disk, *loop_);
  ASSERT_TRUE(driver.Start());
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(driver.Ask(0, Request(kRead, 0), kSector + 1));
  const std::byte write_through{0};
  (*disk)->WriteConfig(32, {&write_through, 1});
  const Status moved = driver.MoveTo(**other);
  ASSERT_TRUE(moved) << moved.error().ToString();
  std::byte cache{1};
  (*other)->ReadConfig(32, {&cache, 1});
  EXPECT_EQ(cache, write_through);
  for (int i = 0; i < 100; ++i) {
    const auto read = driver.Ask(0, Request(kRead, 0), kSector + 1);
    ASSERT_TRUE(read) << read.error().ToString();
    EXPECT_EQ(read->data.at(kSector), std::byte{0});
  }
  driver.Stop();
}

TEST_F(VhostUserBlkTest, ABackEndThatIsKilledAndComesBackLosesNoRequest) {
  auto disk = MakeDisk();
  ASSERT_TRUE(disk) << disk.error().ToString();
  TestDriver driver(**disk, *loop_);
  ASSERT_TRUE(driver.Start());
  ASSERT_TRUE(driver.Ask(0, Request(kRead, 0), kSector + 1));
  constexpr std::uint64_t kRequests = 12;
  for (int kill = 0; kill < 3; ++kill) {
    SCOPED_TRACE(kill);
    // Some are sent before it dies, some while it is gone.
    std::vector<GuestAddress> statuses;
    const auto send = [&](std::uint64_t sector) {
      const std::string text(kSector, static_cast<char>('A' + kill));
      const GuestAddress out = driver.ram().Put(Request(kWrite, sector, BytesOf(text)));
      const GuestAddress status = driver.ram().Allocate(1);
      driver.ram().Store<std::uint8_t>(status, 0xff);
      const TestBuffer buffers[] = {{out, 16 + kSector, false}, {status, 1, true}};
      driver.Send(0, buffers);
      statuses.push_back(status);
    };
    for (std::uint64_t i = 0; i < kRequests / 2; ++i) send(100 + i);
    backend_->Kill();
    for (std::uint64_t i = kRequests / 2; i < kRequests; ++i) send(100 + i);
    // The loss is noticed, and nothing is answered meanwhile.
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(loop_->RunOnce(std::chrono::milliseconds(20)));
    ASSERT_TRUE(backend_->Start());
    std::size_t answered = 0;
    ASSERT_TRUE(driver.RunUntil([&] {
      while (driver.Take(0)) ++answered;
      return answered >= kRequests;
    })) << answered;
    for (const GuestAddress status : statuses) {
      EXPECT_EQ(driver.ram().Load<std::uint8_t>(status), 0);
    }
    for (std::uint64_t i = 0; i < kRequests; ++i) {
      std::string content(kSector, '\0');
      std::ifstream image(Path("image"));
      image.seekg(static_cast<std::streamoff>((100 + i) * kSector));
      image.read(content.data(), kSector);
      EXPECT_EQ(content, std::string(kSector, static_cast<char>('A' + kill))) << i;
    }
    EXPECT_FALSE(driver.Take(0));  // each is answered once
    EXPECT_EQ(driver.needs_reset(), "");
  }
}

TEST_F(VhostUserBlkTest, NothingIsAnsweredWhileTheMachineStandsAndNothingIsLost) {
  auto disk = MakeDisk();
  ASSERT_TRUE(disk) << disk.error().ToString();
  TestDriver driver(**disk, *loop_);
  ASSERT_TRUE(driver.Start());
  constexpr std::size_t kRequests = 6;
  const auto write = [&](std::uint64_t sector, char mark) {
    const std::string text(kSector, mark);
    const GuestAddress out = driver.ram().Put(Request(kWrite, sector, BytesOf(text)));
    const TestBuffer buffers[] = {{out, 16 + kSector, false}, {driver.ram().Allocate(1), 1, true}};
    driver.Send(0, buffers);
  };
  // The third time, the back end dies while the machine stands.
  for (int round = 0; round < 3; ++round) {
    SCOPED_TRACE(round);
    for (std::size_t i = 0; i < kRequests; ++i) write(10 + i, static_cast<char>('a' + round));
    (*disk)->SetRunning(false);
    // What was sent before is all answered: whoever looks at the memory now finds it at rest.
    std::size_t answered = 0;
    while (driver.Take(0)) ++answered;
    EXPECT_EQ(answered, kRequests);
    for (std::size_t i = 0; i < kRequests; ++i) write(30 + i, static_cast<char>('a' + round));
    if (round == 2) {
      backend_->Kill();
      ASSERT_TRUE(backend_->Start());
    }
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(loop_->RunOnce(10ms));
    EXPECT_FALSE(driver.Take(0));
    (*disk)->SetRunning(true);
    answered = 0;
    ASSERT_TRUE(driver.RunUntil([&] {
      while (driver.Take(0)) ++answered;
      return answered >= kRequests;
    })) << answered;
    const auto read = driver.Ask(1, Request(kRead, 30), kSector + 1);
    ASSERT_TRUE(read) << read.error().ToString();
    EXPECT_EQ(read->data.at(0), static_cast<std::byte>('a' + round));
    EXPECT_FALSE(driver.Take(0));  // each is answered once
  }
  EXPECT_EQ(driver.needs_reset(), "");
}

TEST_F(VhostUserBlkTest, WithoutReconnectTheDriverHearsOfTheEnd) {
  auto disk = MakeVhostUserBlk(*loop_, memory_.space(),
                               vhost_user::Endpoint(Path("socket"), std::nullopt), {});
  ASSERT_TRUE(disk) << disk.error().ToString();
  TestDriver driver(**disk, *loop_);
  ASSERT_TRUE(driver.Start());
  backend_->Kill();
  ASSERT_TRUE(driver.RunUntil([&] { return !driver.needs_reset().empty(); }));
  EXPECT_THAT(driver.needs_reset(), HasSubstr("lost"));
}

TEST_F(VhostUserBlkTest, StartsAndResetsWhileTheBackEndIsAway) {
  auto disk = MakeDisk();
  ASSERT_TRUE(disk) << disk.error().ToString();
  backend_->Kill();
  {
    TestDriver driver(**disk, *loop_);
    ASSERT_TRUE(driver.Start());
    ASSERT_TRUE(loop_->RunOnce(std::chrono::milliseconds(20)));
  }
  TestDriver driver(**disk, *loop_);
  ASSERT_TRUE(driver.Start());
  ASSERT_TRUE(backend_->Start());
  const auto read = driver.Ask(1, Request(kRead, 0), kSector + 1);
  ASSERT_TRUE(read) << read.error().ToString();
  EXPECT_EQ(std::memcmp(read->data.data(), "first", 5), 0);
}

TEST_F(VhostUserBlkTest, TheDriverSwitchesTheWriteCacheAlsoForASuccessor) {
  auto disk = MakeDisk();
  ASSERT_TRUE(disk) << disk.error().ToString();
  TestDriver driver(**disk, *loop_);
  ASSERT_TRUE(driver.Start());
  const std::byte off{0};
  (*disk)->WriteConfig(32, {&off, 1});
  std::byte now{0xff};
  (*disk)->ReadConfig(32, {&now, 1});
  EXPECT_EQ(now, off);
  // An exchange behind it says that it has arrived; then the next back end tells what it was given.
  ASSERT_TRUE(loop_->RunOnce(std::chrono::milliseconds(1)));
  backend_->Kill();
  ASSERT_TRUE(loop_->RunOnce(std::chrono::milliseconds(20)));
  ASSERT_TRUE(backend_->Start());
  ASSERT_TRUE(driver.Ask(0, Request(kRead, 0), kSector + 1));
  (*disk)->ReadConfig(32, {&now, 1});
  EXPECT_EQ(now, off);
}

class VhostUserFsTest : public VhostUserTest {
 protected:
  void SetUp() override {
    VhostUserTest::SetUp();
    if (::access(vhost_user::kVirtiofsd, X_OK) != 0) {
      GTEST_SKIP() << vhost_user::kVirtiofsd << " is not installed";
    }
    if (::geteuid() != 0) GTEST_SKIP() << "this virtiofsd needs root";
  }
};

TEST_F(VhostUserFsTest, AnswersTheFirstRequestOfADriver) {
  TestBackend daemon({vhost_user::kVirtiofsd, "--socket-path=" + Path("socket"), "-o",
                      "source=" + Path("share"), "-o", "sandbox=chroot"},
                     Path("socket"));
  ASSERT_TRUE(daemon.Start());
  TestMemory memory(1 << 20);
  auto fs = MakeVhostUserFs(*loop_, memory.space(), Endpoint(), {.tag = "folder"});
  ASSERT_TRUE(fs) << fs.error().ToString();
  const Status migratable = (*fs)->Migratable();
  ASSERT_FALSE(migratable);
  EXPECT_THAT(migratable.error().message(), HasSubstr("its back end has the guest's open files"));
  std::string tag(36, 'x');
  (*fs)->ReadConfig(0, std::as_writable_bytes(std::span(tag)));
  EXPECT_EQ(tag, std::string("folder") + std::string(30, '\0'));
  TestDriver driver(**fs, *loop_);
  ASSERT_TRUE(driver.Start());
  // FUSE_INIT: header (length, opcode 26, unique …), then version 7.31, readahead, flags.
  std::vector<std::uint32_t> init(14);
  init[0] = 56;
  init[1] = 26;
  init[2] = 1;
  init[10] = 7;
  init[11] = 31;
  init[12] = 4096;
  const auto answer = driver.Ask(1, std::as_bytes(std::span(init)), 80);
  ASSERT_TRUE(answer) << answer.error().ToString();
  std::uint32_t head[5];
  std::memcpy(head, answer->data.data(), sizeof head);
  EXPECT_EQ(head[1], 0U);  // no error
  EXPECT_EQ(head[2], 1U);  // unique
  EXPECT_EQ(head[4], 7U);  // major version
}

TEST_F(VhostUserTest, SaysThatThereIsNoBackEnd) {
  TestMemory memory(1 << 20);
  const auto disk = MakeVhostUserBlk(*loop_, memory.space(), Endpoint(), {});
  ASSERT_FALSE(disk);
  EXPECT_THAT(disk.error().message(), HasSubstr("cannot connect to the vhost-user back end at"));
}

TEST_F(VhostUserTest, RefusesMemoryThatCannotBeShared) {
  auto block = RamBlock::CreateAnonymous("ram0", 1 << 20, {.shared = false});
  ASSERT_TRUE(block);
  AddressSpace space(nullptr);
  ASSERT_TRUE(space.AddRam(GuestAddress(0), 1 << 20, **block, 0));
  const auto disk = MakeVhostUserBlk(*loop_, space, Endpoint(), {});
  ASSERT_FALSE(disk);
  EXPECT_THAT(disk.error().ToString(), HasSubstr("'ram0' is private"));
  EXPECT_THAT(disk.error().ToString(), HasSubstr("share=on"));
}

}  // namespace
}  // namespace holdfast::devices::virtio
