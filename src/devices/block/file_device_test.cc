// SPDX-License-Identifier: Apache-2.0
#include "devices/block/file_device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <array>
#include <string>
#include <vector>

#include "devices/block/test_support.h"

namespace holdfast::devices::block {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

struct Mode {
  const char* name;
  Aio aio;
  bool direct;
};

class FileDeviceModes : public ::testing::TestWithParam<Mode> {
 protected:
  void SetUp() override {
    auto loop = EventLoop::Create();
    ASSERT_TRUE(loop);
    loop_ = *std::move(loop);
  }
  void Open(const TestImage& image, FileOptions options = {}) {
    options.node_name = "disk";
    options.filename = image.path();
    options.aio = GetParam().aio;
    options.direct = GetParam().direct;
    auto device = FileDevice::Open(options);
    if (!device && device.error().code() == Errc::kUnsupported) {
      GTEST_SKIP() << device.error().ToString();
    }
    ASSERT_TRUE(device) << device.error().ToString();
    device_ = *std::move(device);
    ASSERT_TRUE(device_->PrepareFor(4096, false));
    if (GetParam().direct && device_->offset_alignment() > 512) {
      GTEST_SKIP() << "direct I/O in units of " << device_->offset_alignment() << " here";
    }
    auto submitter = device_->MakeSubmitter(*loop_);
    ASSERT_TRUE(submitter) << submitter.error().ToString();
    submitter_ = *std::move(submitter);
  }
  void TearDown() override {
    submitter_.reset();
    device_.reset();
  }
  int Io(Operation operation, std::uint64_t offset, std::span<const iovec> pieces) {
    return DoIo(*loop_, *submitter_, operation, offset, pieces);
  }
  int Range(Operation operation, std::uint64_t offset, std::uint64_t length,
            bool may_unmap = false) {
    return Do(*loop_, *submitter_,
              {.operation = operation,
               .offset = offset,
               .length = length,
               .buffers = {},
               .may_unmap = may_unmap,
               .fua = true,
               .done = {}});
  }

  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<FileDevice> device_;
  std::unique_ptr<BlockDevice::Submitter> submitter_;
};

INSTANTIATE_TEST_SUITE_P(All, FileDeviceModes,
                         ::testing::Values(Mode{"Uring", Aio::kIoUring, false},
                                           Mode{"UringDirect", Aio::kIoUring, true},
                                           Mode{"Threads", Aio::kThreads, false},
                                           Mode{"ThreadsDirect", Aio::kThreads, true}),
                         [](const auto& mode) { return std::string(mode.param.name); });

TEST_P(FileDeviceModes, ReadsWhatWasWritten) {
  const TestImage image(64 * 1024, 'x');
  Open(image);
  if (IsSkipped() || HasFatalFailure()) return;
  EXPECT_EQ(device_->size(), 64U * 1024);
  TestBuffer out(8192, 'a');
  const std::array<iovec, 2> pieces = {out.piece(0, 512), out.piece(512, 7680)};
  EXPECT_EQ(Io(Operation::kWrite, 1024, pieces), 0);
  EXPECT_EQ(Range(Operation::kFlush, 0, 0), 0);
  TestBuffer in(16384);
  const std::array<iovec, 1> whole = {in.piece(0, 16384)};
  EXPECT_EQ(Io(Operation::kRead, 0, whole), 0);
  const std::string want = std::string(1024, 'x') + std::string(8192, 'a') + std::string(7168, 'x');
  EXPECT_EQ(in.text(), want);
  EXPECT_EQ(image.Contents().substr(0, 16384), want);
}

TEST_P(FileDeviceModes, TakesMemoryThatIsAlignedToNothing) {
  const TestImage image(4 * 1024 * 1024);
  Open(image);
  if (IsSkipped() || HasFatalFailure()) return;
  TestBuffer out(3 * 1024 * 1024, 'm', 3);
  for (std::size_t i = 0; i < out.data().size(); ++i) out.data()[i] = static_cast<char>(i % 251);
  // Cut where no device would cut it; together more than goes through a buffer at once.
  const std::array<iovec, 3> pieces = {out.piece(0, 1), out.piece(1, 1048576),
                                       out.piece(1048577, 2097151)};
  EXPECT_EQ(Io(Operation::kWrite, 512, pieces), 0);
  TestBuffer in(3 * 1024 * 1024, '\0', 5);
  const std::array<iovec, 2> other = {in.piece(0, 2097153), in.piece(2097153, 1048575)};
  EXPECT_EQ(Io(Operation::kRead, 512, other), 0);
  EXPECT_TRUE(in.text() == out.text());
}

TEST_P(FileDeviceModes, TakesMorePiecesThanOneSystemCall) {
  const TestImage image(4 * 1024 * 1024);
  Open(image);
  if (IsSkipped() || HasFatalFailure()) return;
  constexpr std::size_t kPieces = 2500;
  TestBuffer out(kPieces * 512, 'p');
  std::vector<iovec> pieces;
  for (std::size_t i = 0; i < kPieces; ++i) pieces.push_back(out.piece(i * 512, 512));
  EXPECT_EQ(Io(Operation::kWrite, 0, pieces), 0);
  TestBuffer in(kPieces * 512);
  pieces.clear();
  for (std::size_t i = 0; i < kPieces; ++i) pieces.push_back(in.piece(i * 512, 512));
  EXPECT_EQ(Io(Operation::kRead, 0, pieces), 0);
  EXPECT_TRUE(in.text() == out.text());
}

TEST_P(FileDeviceModes, ReadsZeroesWhereTheFileHasEnded) {
  const TestImage image(1000, 'e');
  Open(image);
  if (IsSkipped() || HasFatalFailure()) return;
  EXPECT_EQ(device_->size(), 1024U) << "a last piece of a sector is a sector";
  TestBuffer in(1024, '?');
  const std::array<iovec, 2> pieces = {in.piece(0, 512), in.piece(512, 512)};
  EXPECT_EQ(Io(Operation::kRead, 0, pieces), 0);
  EXPECT_EQ(in.text(), std::string(1000, 'e') + std::string(24, '\0'));
  ASSERT_EQ(::truncate(image.path().c_str(), 0), 0);
  EXPECT_EQ(Io(Operation::kRead, 0, pieces), 0) << "somebody has cut the file";
  EXPECT_THAT(in.text(), Each('\0'));
}

TEST_P(FileDeviceModes, WritesZeroesWithAndWithoutHoles) {
  const TestImage image(1024 * 1024, 'z');
  Open(image, {.discard = true});
  if (IsSkipped() || HasFatalFailure()) return;
  EXPECT_EQ(Range(Operation::kWriteZeroes, 4096, 65536, false), 0);
  EXPECT_EQ(Range(Operation::kWriteZeroes, 131072, 65536, true), 0);
  EXPECT_EQ(Range(Operation::kDiscard, 262144, 262144), 0);
  const std::string contents = image.Contents();
  EXPECT_EQ(contents.size(), 1024U * 1024);
  EXPECT_EQ(contents[4095], 'z');
  EXPECT_THAT(contents.substr(4096, 65536), Each('\0'));
  EXPECT_EQ(contents[4096 + 65536], 'z');
  EXPECT_THAT(contents.substr(131072, 65536), Each('\0'));
  EXPECT_THAT(contents.substr(262144, 262144), Each('\0'));
  // Where zeroing a range is missing, zeroes are written.
  device_->lacks().zero_range = true;
  EXPECT_EQ(Range(Operation::kWriteZeroes, 8192, 5 * 1024 * 100, false), 0);
  EXPECT_THAT(image.Contents().substr(8192, 512000), Each('\0'));
}

TEST_P(FileDeviceModes, DiscardsNothingUnlessAsked) {
  const TestImage image(65536, 'd');
  Open(image);
  if (IsSkipped() || HasFatalFailure()) return;
  EXPECT_EQ(Range(Operation::kDiscard, 0, 65536), 0);
  EXPECT_EQ(image.Contents(), std::string(65536, 'd'));
}

TEST_P(FileDeviceModes, RefusesWritesWhenReadonly) {
  const TestImage image(4096, 'r');
  Open(image, {.readonly = true});
  if (IsSkipped() || HasFatalFailure()) return;
  TestBuffer out(512);
  const std::array<iovec, 1> pieces = {out.piece(0, 512)};
  EXPECT_EQ(Io(Operation::kWrite, 0, pieces), EPERM);
  EXPECT_EQ(Range(Operation::kDiscard, 0, 512), EPERM);
  EXPECT_EQ(Range(Operation::kWriteZeroes, 0, 512), EPERM);
  EXPECT_EQ(Range(Operation::kFlush, 0, 0), 0);
  EXPECT_EQ(Io(Operation::kRead, 0, pieces), 0);
}

TEST_P(FileDeviceModes, KeepsThousandsOfRequestsApart) {
  const TestImage image(2048 * 512);
  Open(image);
  if (IsSkipped() || HasFatalFailure()) return;
  TestBuffer out(2048 * 512);
  std::vector<iovec> pieces;
  for (std::size_t i = 0; i < 2048; ++i) {
    pieces.push_back(out.piece(i * 512, 512));
    std::fill_n(out.data().data() + i * 512, 512, static_cast<char>(i % 127));
  }
  unsigned done = 0;
  for (std::size_t i = 0; i < 2048; ++i) {
    submitter_->Submit({.operation = Operation::kWrite,
                        .offset = i * 512,
                        .length = 512,
                        .buffers = std::span(pieces).subspan(i, 1),
                        .done = [&](int error) { done += error == 0 ? 1 : 0; }});
  }
  submitter_->Drain();
  EXPECT_EQ(done, 2048U);
  EXPECT_TRUE(image.Contents() == out.text());
}

TEST(FileDevice, RefusesAnImageThatAnotherProcessUses) {
  const TestImage image(4096);
  const auto open = [&](bool readonly, object::OnOffAuto locking,
                        bool share_write = false) -> Result<std::unique_ptr<FileDevice>> {
    HF_TRY(auto device, FileDevice::Open({.node_name = "n",
                                          .filename = image.path(),
                                          .readonly = readonly,
                                          .locking = locking}));
    HF_TRY_STATUS(device->PrepareFor(512, share_write));
    return device;
  };
  {
    const auto writer = open(false, object::OnOffAuto::kOn);
    ASSERT_TRUE(writer) << writer.error().ToString();
    const auto second = open(false, object::OnOffAuto::kAuto);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().message(), "Failed to get \"write\" lock");
    EXPECT_EQ(second.error().hint(), "Is another process using the image [" + image.path() + "]?");
    const auto reader = open(true, object::OnOffAuto::kAuto);
    ASSERT_FALSE(reader);
    EXPECT_EQ(reader.error().message(), "Failed to get shared \"write\" lock");
    EXPECT_TRUE(open(false, object::OnOffAuto::kOff));
  }
  {
    const auto first = open(false, object::OnOffAuto::kOn, true);
    EXPECT_TRUE(open(false, object::OnOffAuto::kOn, true)) << "share-rw on both sides";
    (*first)->Release();
    EXPECT_TRUE(open(false, object::OnOffAuto::kOn)) << "it let go";
  }
  const auto reader = open(true, object::OnOffAuto::kOn);
  EXPECT_TRUE(reader);
  EXPECT_TRUE(open(true, object::OnOffAuto::kOn)) << "readers share";
  EXPECT_FALSE(open(false, object::OnOffAuto::kOn)) << "a reader keeps writers out";
  EXPECT_FALSE(open(false, object::OnOffAuto::kOn, true)) << "however generous they are";
}

TEST(FileDevice, SaysWhyAnImageCannotBeOpened) {
  const auto missing = FileDevice::Open({.node_name = "n", .filename = "/does/not/exist"});
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().message(),
            "Could not open '/does/not/exist': No such file or directory");
  const auto folder = FileDevice::Open({.node_name = "n", .filename = "/", .readonly = true});
  ASSERT_FALSE(folder);
  EXPECT_THAT(folder.error().message(), HasSubstr("driver requires '/' to be a regular file"));
  const TestImage image(512);
  const auto host =
      FileDevice::Open({.node_name = "n", .filename = image.path(), .host_device = true});
  ASSERT_FALSE(host);
  EXPECT_THAT(host.error().message(), HasSubstr("to be a block device"));
}

TEST(FileDevice, ResizesFiles) {
  const TestImage image(4096);
  const auto device = FileDevice::Open({.node_name = "n", .filename = image.path()});
  ASSERT_TRUE(device);
  EXPECT_TRUE((*device)->Resize(1 << 20));
  EXPECT_EQ((*device)->size(), 1U << 20);
  EXPECT_EQ(std::filesystem::file_size(image.path()), 1U << 20);
}

}  // namespace
}  // namespace holdfast::devices::block
