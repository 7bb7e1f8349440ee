// SPDX-License-Identifier: Apache-2.0
#include "devices/block/storage_daemon.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "devices/block/file_device.h"
#include "devices/vhost_user/test_backend.h"
#include "devices/virtio/test_driver.h"
#include "devices/virtio/vhost_user_models.h"

namespace holdfast::devices::block {
namespace {

using ::testing::HasSubstr;
using virtio::BytesOf;
using virtio::TestDriver;

constexpr std::uint32_t kSector = 512;

std::vector<std::byte> Request(std::uint32_t type, std::uint64_t sector,
                               std::span<const std::byte> data = {}) {
  std::vector<std::byte> bytes(16);
  std::memcpy(bytes.data(), &type, sizeof type);
  std::memcpy(bytes.data() + 8, &sector, sizeof sector);
  bytes.insert(bytes.end(), data.begin(), data.end());
  return bytes;
}

// The process that waits for the object's daemon: this process's only child.
pid_t OnlyChild() {
  std::ifstream children("/proc/thread-self/children");
  pid_t pid = -1;
  children >> pid;
  return pid;
}

class StorageDaemonTest : public ::testing::Test {
 protected:
  StorageDaemonTest()
      : folder_(std::filesystem::temp_directory_path() /
                ("storage_daemon_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~StorageDaemonTest() override {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }
  void SetUp() override {
    if (::access(vhost_user::kStorageDaemon, X_OK) != 0) {
      GTEST_SKIP() << vhost_user::kStorageDaemon << " is not installed";
    }
    auto loop = EventLoop::Create();
    ASSERT_TRUE(loop);
    loop_ = *std::move(loop);
  }

  std::string Path(const char* name) const { return (folder_ / name).string(); }

  // The smallest qcow2 image: a header, a reference table and one block of it, a mapping of
  // nothing.
  std::string MakeQcow2(std::uint64_t size) const {
    constexpr std::size_t kCluster = 65536;
    std::vector<unsigned char> bytes(4 * kCluster);
    const auto put = [&](std::size_t at, std::uint64_t value, int width) {
      for (int i = 0; i < width; ++i) {
        bytes[at + static_cast<std::size_t>(i)] =
            static_cast<unsigned char>(value >> (8 * (width - 1 - i)));
      }
    };
    put(0, 0x514649fb, 4);
    put(4, 2, 4);              // version
    put(20, 16, 4);            // cluster bits
    put(24, size, 8);          // disk
    put(36, 1, 4);             // entries of the mapping
    put(40, 3 * kCluster, 8);  // where it is
    put(48, kCluster, 8);      // the reference table
    put(56, 1, 4);
    put(kCluster, 2 * kCluster, 8);
    for (std::size_t i = 0; i < 4; ++i) put(2 * kCluster + 2 * i, 1, 2);
    const std::string path = Path("disk, one.qcow2");
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    return path;
  }
  static StorageDaemon::Config Of(const std::string& path) {
    StorageDaemon::Config config{.node = {}, .queues = 2, .user = {}};
    config.node.driver = NodeDriver::kImage;
    config.node.format = "qcow2";
    config.node.own_child = std::make_shared<NodeOptions>();
    config.node.own_child->filename = path;
    return config;
  }

  auto Connect(StorageDaemon& daemon) {
    return virtio::MakeVhostUserBlk(*loop_, memory_.space(), *daemon.endpoint(), {});
  }
  static void Write(TestDriver& driver, std::uint64_t sector, char letter) {
    const std::string text(kSector, letter);
    const auto written = driver.Ask(0, Request(1, sector, BytesOf(text)), 1);
    ASSERT_TRUE(written) << written.error().ToString();
    EXPECT_EQ(written->data.at(0), std::byte{0});
  }
  static void Flush(TestDriver& driver) {
    const auto flushed = driver.Ask(0, Request(4, 0), 1);
    ASSERT_TRUE(flushed) << flushed.error().ToString();
    EXPECT_EQ(flushed->data.at(0), std::byte{0});
  }
  static void ExpectRead(TestDriver& driver, std::uint64_t sector, char letter) {
    const auto read = driver.Ask(1, Request(0, sector), kSector + 1);
    ASSERT_TRUE(read) << read.error().ToString();
    EXPECT_EQ(std::vector(read->data.begin(), read->data.begin() + kSector),
              BytesOf(std::string(kSector, letter)));
  }

  const std::filesystem::path folder_;
  std::unique_ptr<EventLoop> loop_;
  virtio::TestMemory memory_{1 << 20};
};

TEST_F(StorageDaemonTest, ServesAnImageAndAnotherTakesItsPlaceWhenItDies) {
  constexpr std::uint64_t kSize = 64 << 20;
  const std::string path = MakeQcow2(kSize);
  pid_t last = -1;
  {
    const auto daemon = *StorageDaemon::Create(Of(path));
    auto disk = Connect(*daemon);
    ASSERT_TRUE(disk) << disk.error().ToString();
    std::uint64_t sectors = 0;
    (*disk)->ReadConfig(0, std::as_writable_bytes(std::span(&sectors, 1)));
    EXPECT_EQ(sectors, kSize / kSector);
    EXPECT_EQ((*disk)->queue_sizes().size(), 2U);
    TestDriver driver(**disk, *loop_);
    ASSERT_TRUE(driver.Start());
    Write(driver, 5, 'q');
    Flush(driver);

    last = OnlyChild();
    ASSERT_GT(last, 0);
    ASSERT_EQ(::kill(last, SIGKILL), 0);
    ExpectRead(driver, 5, 'q');
    EXPECT_NE(OnlyChild(), last);
    last = OnlyChild();
    EXPECT_EQ(driver.needs_reset(), "");
  }
  EXPECT_NE(::kill(last, 0), 0) << "it has ended with its object";
}

// What is written and not flushed is in the daemon's memory: where things lie in the image.
TEST_F(StorageDaemonTest, AFlushFromOutsideMakesWhatWasWrittenOutliveTheDaemon) {
  const auto daemon = *StorageDaemon::Create(Of(MakeQcow2(64 << 20)));
  EXPECT_TRUE(daemon->Flush()) << "nobody has written";
  auto disk = Connect(*daemon);
  ASSERT_TRUE(disk) << disk.error().ToString();
  TestDriver driver(**disk, *loop_);
  ASSERT_TRUE(driver.Start());
  for (const char letter : {'a', 'b'}) {
    Write(driver, 5, letter);
    const Status flushed = daemon->Flush();
    ASSERT_TRUE(flushed) << flushed.error().ToString();
    ASSERT_EQ(::kill(OnlyChild(), SIGKILL), 0);
    ExpectRead(driver, 5, letter);  // another one has taken over
  }
  daemon->Freeze();
  const pid_t last = OnlyChild();
  ASSERT_EQ(::kill(last, SIGKILL), 0);
  siginfo_t info{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(last), &info, WEXITED | WNOWAIT), 0);
  const Status refused = daemon->Flush();
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), HasSubstr("the storage daemon is gone"));
}

TEST_F(StorageDaemonTest, OnceFrozenTheDriverHearsOfItsEnd) {
  const auto daemon = *StorageDaemon::Create(Of(MakeQcow2(1 << 20)));
  auto disk = Connect(*daemon);
  ASSERT_TRUE(disk) << disk.error().ToString();
  TestDriver driver(**disk, *loop_);
  ASSERT_TRUE(driver.Start());
  daemon->Freeze();
  ASSERT_EQ(::kill(OnlyChild(), SIGKILL), 0);
  ASSERT_TRUE(driver.RunUntil([&] { return !driver.needs_reset().empty(); }));
  EXPECT_THAT(driver.needs_reset(), HasSubstr("lost"));
}

TEST_F(StorageDaemonTest, ASnapshotIsForgottenAndTheImageStaysAsItIs) {
  const std::string raw = Path("disk.raw");
  const std::string before(1 << 20, 'r');
  std::ofstream(raw) << before;
  const std::string folder = Path("temporary");
  std::filesystem::create_directories(folder);
  ::setenv("TMPDIR", folder.c_str(), 1);
  StorageDaemon::Config config = Of(raw);
  config.node.driver = NodeDriver::kRaw;
  config.snapshot = true;
  for (int run = 0; run < 2; ++run) {
    SCOPED_TRACE(run);
    auto daemon = StorageDaemon::Create(config);
    ASSERT_TRUE(daemon) << daemon.error().ToString();
    EXPECT_TRUE(std::filesystem::is_empty(folder)) << "a file without a name";
    EXPECT_EQ((*daemon)->format(), "raw");
    const auto writer = FileDevice::Open({.node_name = "w", .filename = raw});
    ASSERT_TRUE(writer);
    const Status locked = (*writer)->PrepareFor(512, false);
    ASSERT_FALSE(locked) << "nobody may write it meanwhile";
    EXPECT_EQ(locked.error().message(), "Failed to get \"write\" lock");
    auto disk = Connect(**daemon);
    ASSERT_TRUE(disk) << disk.error().ToString();
    TestDriver driver(**disk, *loop_);
    ASSERT_TRUE(driver.Start());
    ExpectRead(driver, 5, 'r');
    Write(driver, 5, 'w');
    Flush(driver);
    ASSERT_EQ(::kill(OnlyChild(), SIGKILL), 0);
    ExpectRead(driver, 5, 'w');  // another one has taken over
    EXPECT_EQ(driver.needs_reset(), "");
  }
  ::unsetenv("TMPDIR");
  std::ifstream file(raw, std::ios::binary);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), before);
}

TEST_F(StorageDaemonTest, ASnapshotThatCannotBeMadeSaysWhy) {
  StorageDaemon::Config config = Of(Path("missing"));
  config.snapshot = true;
  const auto missing = StorageDaemon::Create(config);
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().message(), HasSubstr("Could not open '"));
  std::ofstream(Path("missing")) << "no image";
  const auto bad = StorageDaemon::Create(config);
  ASSERT_FALSE(bad);
  EXPECT_THAT(bad.error().message(), HasSubstr("cannot make a temporary layer upon '"));
  config.image_tool = "no-such-tool";
  const auto no_tool = StorageDaemon::Create(config);
  ASSERT_FALSE(no_tool);
  EXPECT_THAT(no_tool.error().message(), HasSubstr("needs no-such-tool, which cannot be started"));
  ::setenv("TMPDIR", "/no/such/folder", 1);
  const auto no_folder = StorageDaemon::Create(config);
  ::unsetenv("TMPDIR");
  ASSERT_FALSE(no_folder);
  EXPECT_THAT(no_folder.error().message(), HasSubstr("the temporary file '/no/such/folder/"));
}

TEST_F(StorageDaemonTest, ServesOneDeviceAtATime) {
  const auto daemon = *StorageDaemon::Create(Of(MakeQcow2(1 << 20)));
  {
    const auto first = daemon->endpoint();
    ASSERT_TRUE(first);
    EXPECT_TRUE(daemon->used());
    const auto second = daemon->endpoint();
    ASSERT_FALSE(second);
    EXPECT_THAT(second.error().message(), HasSubstr("already in use by another block device"));
  }
  EXPECT_FALSE(daemon->used());
  EXPECT_TRUE(daemon->endpoint());
}

TEST_F(StorageDaemonTest, RunsWithoutRights) {
  const auto daemon = *StorageDaemon::Create(Of(MakeQcow2(1 << 20)));
  auto disk = Connect(*daemon);
  ASSERT_TRUE(disk) << disk.error().ToString();
  std::ifstream status(fmt::format("/proc/{}/status", OnlyChild()));
  const std::string text(std::istreambuf_iterator<char>(status), {});
  EXPECT_THAT(text, HasSubstr("NoNewPrivs:\t1"));
  // CAP_DAC_OVERRIDE is number 1: all that may be left of root's.
  for (const char* const set : {"CapPrm:", "CapEff:", "CapInh:"}) {
    const std::size_t at = text.find(set);
    ASSERT_NE(at, std::string::npos);
    EXPECT_EQ(std::stoull(text.substr(at + std::strlen(set)), nullptr, 16) & ~2ULL, 0U) << set;
  }
}

TEST_F(StorageDaemonTest, SaysWhyAnImageIsNotServed) {
  std::ofstream(Path("bad")) << "no image";
  const struct {
    std::string file;
    std::string program;
    const char* says;
  } cases[] = {
      {Path("bad"), "qemu-storage-daemon", "could not serve '"},
      {Path("missing"), "qemu-storage-daemon", "could not serve '"},
      {Path("bad"), "no-such-daemon", "needs no-such-daemon, which cannot be started"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.file + c.program);
    StorageDaemon::Config config = Of(c.file);
    config.program = c.program;
    const auto daemon = *StorageDaemon::Create(config);
    auto disk = Connect(*daemon);
    ASSERT_FALSE(disk);
    EXPECT_THAT(daemon->Explain(std::move(disk).error()).message(), HasSubstr(c.says));
  }
}

TEST(ImageFormatTest, RawIsNone) {
  EXPECT_TRUE(IsImageFormat("qcow2"));
  EXPECT_TRUE(IsImageFormat("vmdk"));
  EXPECT_FALSE(IsImageFormat("raw"));
  EXPECT_FALSE(IsImageFormat(""));
}

}  // namespace
}  // namespace holdfast::devices::block
