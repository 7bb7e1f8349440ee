// SPDX-License-Identifier: Apache-2.0
#include "migration/peer_pages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/address_space.h>
#include <holdfast/ram_block.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <span>
#include <thread>
#include <utility>

#include "migration/socket_channel.h"

namespace holdfast::migration {
namespace {

using ::testing::HasSubstr;

constexpr std::uint64_t kPages = 4;
constexpr std::uint64_t kWhole = kPages * kPageSize;
constexpr std::chrono::seconds kPatience{60};
constexpr std::uint64_t kBlockSizes[] = {kWhole};
constexpr std::byte kNew{0x5a};

// The two ends of a connection; a request is read from the far one.
class Line {
 public:
  Line() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    near_ = SocketChannel::Create(UniqueFd(fds[0]), "the near one").value();
    far_ = SocketChannel::Create(UniqueFd(fds[1]), "the far one").value();
    writer = std::make_shared<FrameWriter>(*near_);
    reader_ = std::make_unique<FrameReader>(*far_);
  }
  PageRequest Next() {
    const auto bytes = reader_->Expect(FrameType::kRequest, kPatience);
    EXPECT_TRUE(bytes) << bytes.error().ToString();
    const auto request = DecodeRequest(*bytes, kBlockSizes);
    EXPECT_TRUE(request) << request.error().ToString();
    return *request;
  }
  void Break() { far_->Shutdown(); }
  std::shared_ptr<FrameWriter> writer;

 private:
  std::unique_ptr<SocketChannel> near_, far_;
  std::unique_ptr<FrameReader> reader_;
};

// All pages of a block are missing, and a thread waits for all of them.
class PeerPagesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(memory_.AddRam(GuestAddress(0), kWhole, *block_, 0));
    DirtyPages missing(memory_);
    missing.blocks()[0].pages.Set(0, kPages);
    pages_ = std::make_unique<PeerPages>(std::move(missing),
                                         [this](const FrameWriter&, const Error&) { ++lost_; });
  }
  void Wait() {
    waiter_ = std::jthread([this] { status_ = pages_->Read(*block_, 0, block_->host_view()); });
  }
  Status Finish() {
    waiter_.join();
    return status_;
  }
  // Page `page` comes as the answer to `request`.
  Status Bring(const void* connection, const PageRequest& request, std::uint64_t page) {
    const PagesHead head{.request = request.id, .block = 0, .count = 1};
    const std::uint64_t offset = page * kPageSize;
    const auto place = pages_->Place(connection, head, offset);
    std::ranges::fill(place, kNew);
    return pages_->Arrived(connection, head, std::span(&offset, 1));
  }

  std::unique_ptr<RamBlock> block_ = RamBlock::CreateMemfd("ram", kWhole).value();
  AddressSpace memory_{nullptr};
  std::unique_ptr<PeerPages> pages_;
  std::atomic<int> lost_ = 0;
  const int here_ = 0, there_ = 0;  // two connections
  Status status_;
  std::jthread waiter_;
};

TEST_F(PeerPagesTest, OnANewConnectionOnlyWhatHasNotComeIsAskedForAgain) {
  Line first, second, third;
  ASSERT_TRUE(pages_->Attach(first.writer));
  Wait();
  const PageRequest asked = first.Next();
  EXPECT_EQ(asked.wanted[0], 0xfU);
  ASSERT_TRUE(Bring(&here_, asked, 1));
  // The next page is on its way when the connection is lost.
  EXPECT_FALSE(pages_->Place(&here_, {.request = asked.id, .count = 1}, 2 * kPageSize).empty());
  pages_->Detach();
  ASSERT_TRUE(pages_->Attach(second.writer));
  const PageRequest again = second.Next();
  EXPECT_EQ(again.wanted[0], 0xdU);
  ASSERT_TRUE(Bring(&there_, again, 2));
  pages_->Detach();
  ASSERT_TRUE(pages_->Attach(third.writer));
  const PageRequest rest = third.Next();
  EXPECT_EQ(rest.wanted[0], 0x9U);
  for (const std::uint64_t page : {0U, 3U}) ASSERT_TRUE(Bring(&here_, rest, page));
  EXPECT_TRUE(Finish());
  EXPECT_THAT(block_->host_view(), ::testing::Each(kNew));
  EXPECT_EQ(lost_, 0);
}

TEST_F(PeerPagesTest, WhoNeedsAPageWithoutAConnectionWaitsForOne) {
  Wait();
  Line line;
  ASSERT_TRUE(pages_->Attach(line.writer));
  const PageRequest asked = line.Next();
  for (std::uint64_t page = 0; page < kPages; ++page) ASSERT_TRUE(Bring(&here_, asked, page));
  EXPECT_TRUE(Finish());
}

TEST_F(PeerPagesTest, AConnectionThatCannotBeWrittenIsToldAndNobodyFails) {
  Line broken, good;
  broken.Break();
  ASSERT_TRUE(pages_->Attach(broken.writer));
  Wait();
  while (lost_ == 0) std::this_thread::yield();
  pages_->Detach();
  ASSERT_TRUE(pages_->Attach(good.writer));
  const PageRequest asked = good.Next();
  for (std::uint64_t page = 0; page < kPages; ++page) ASSERT_TRUE(Bring(&here_, asked, page));
  EXPECT_TRUE(Finish());
}

// Else one could let the waiting thread go while the other still writes to its memory.
TEST_F(PeerPagesTest, TwoConnectionsCannotAnswerTheSameRequestAtOnce) {
  Line line;
  ASSERT_TRUE(pages_->Attach(line.writer));
  Wait();
  const PageRequest asked = line.Next();
  const PagesHead head{.request = asked.id, .count = 1};
  EXPECT_FALSE(pages_->Place(&here_, head, 0).empty());
  EXPECT_TRUE(pages_->Place(&there_, head, kPageSize).empty());
  const std::uint64_t zero = kPageSize | kZeroPage;
  const Status refused = pages_->Arrived(&there_, head, std::span(&zero, 1));
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message(), HasSubstr("nobody asked for"));
  for (std::uint64_t page = 0; page < kPages; ++page) ASSERT_TRUE(Bring(&here_, asked, page));
  EXPECT_TRUE(Finish());
}

TEST_F(PeerPagesTest, ItStallsOnlyWhileSomebodyWaits) {
  constexpr std::chrono::milliseconds kNone{0};
  Line line;
  ASSERT_TRUE(pages_->Attach(line.writer));
  EXPECT_FALSE(pages_->Stalled(kNone));
  Wait();
  const PageRequest asked = line.Next();
  while (!pages_->Stalled(kNone)) std::this_thread::yield();
  EXPECT_FALSE(pages_->Stalled(kPatience));
  for (std::uint64_t page = 0; page < kPages; ++page) ASSERT_TRUE(Bring(&here_, asked, page));
  EXPECT_TRUE(Finish());
  EXPECT_FALSE(pages_->Stalled(kNone));
}

TEST_F(PeerPagesTest, AtTheEndWhoWaitsHearsWhy) {
  Wait();
  pages_->Fail(Error(Errc::kSystem, "the monitor ends"));
  const Status status = Finish();
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().message(), "the monitor ends");
}

}  // namespace
}  // namespace holdfast::migration
