// SPDX-License-Identifier: Apache-2.0
#include "migration/page_receiver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <thread>
#include <utility>
#include <vector>

#include "migration/socket_channel.h"

namespace holdfast::migration {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::chrono::seconds kPatience{60};
constexpr std::uint64_t kBlockSizes[] = {4 * kPageSize, 8 * kPageSize};

std::vector<std::byte> Pages(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int value : values)
    bytes.insert(bytes.end(), kPageSize, static_cast<std::byte>(value));
  return bytes;
}

std::vector<std::byte> Packed(std::span<const std::byte> bytes) {
  std::vector<std::byte> packed(ZSTD_compressBound(bytes.size()));
  packed.resize(ZSTD_compress(packed.data(), packed.size(), bytes.data(), bytes.size(), 1));
  return packed;
}

// Blocks of memory that frames are received into.
class PageReceiverTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const std::uint64_t size : kBlockSizes) blocks_.emplace_back(size, std::byte{0xee});
  }
  // Sends a frame of these parts and receives it.
  Status Receive(std::span<const std::byte> head, std::span<const std::byte> words,
                 std::span<const std::byte> contents) {
    int fds[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) return FailErrno("no pair");
    HF_TRY(const auto near, SocketChannel::Create(UniqueFd(fds[0]), "the near one"));
    HF_TRY(const auto far, SocketChannel::Create(UniqueFd(fds[1]), "the far one"));
    const Channel::Bytes parts[] = {head, words, contents};
    // What the receiver leaves unread fails to be written.
    std::thread sender([&] { (void)FrameWriter(*far).Write(FrameType::kPages, parts); });
    FrameReader reader(*near);
    const Status status = ReceiveFrom(reader);
    near->Shutdown();
    far->Shutdown();
    sender.join();
    return status;
  }
  Status Receive(PagesHead head, const std::vector<std::uint64_t>& words,
                 const std::vector<std::byte>& contents) {
    head.count = static_cast<std::uint32_t>(words.size());
    head.stored = static_cast<std::uint32_t>(contents.size());
    return Receive(EncodePagesHead(head), EncodePageWords(words), contents);
  }
  Status ReceiveFrom(FrameReader& reader) {
    HF_TRY(const FrameHeader header, reader.Next(kPatience));
    const auto received = receiver_.Receive(
        reader, header,
        [this](const PagesHead& about, std::uint64_t offset) {
          if (offset == unwanted_) return std::span<std::byte>();
          return std::span(blocks_[about.block]).subspan(offset, kPageSize);
        },
        [this](const PagesHead& about, std::uint64_t offset) -> Status {
          zeroes_.emplace_back(about.block, offset);
          return {};
        });
    return received ? Status() : Fail(received.error());
  }
  // What each page of a block begins and ends with; -1: not the same.
  std::vector<int> Marks(std::size_t block) const {
    std::vector<int> marks;
    for (std::size_t at = 0; at < blocks_[block].size(); at += kPageSize) {
      const auto first = blocks_[block][at];
      const auto page = std::span(blocks_[block]).subspan(at, kPageSize);
      const bool same = std::ranges::all_of(page, [&](std::byte b) { return b == first; });
      marks.push_back(same ? std::to_integer<int>(first) : -1);
    }
    return marks;
  }

  PageReceiver receiver_{kBlockSizes};
  std::vector<std::vector<std::byte>> blocks_;
  std::vector<std::pair<std::uint32_t, std::uint64_t>> zeroes_;
  std::uint64_t unwanted_ = 1;  // an offset that no page has
};

TEST_F(PageReceiverTest, PagesAreWhereTheyBelong) {
  const Status raw = Receive({.block = 0}, {0, kPageSize, 2 * kPageSize | kZeroPage, 3 * kPageSize},
                             Pages({1, 2, 3}));
  ASSERT_TRUE(raw) << raw.error().ToString();
  EXPECT_THAT(Marks(0), ElementsAre(1, 2, 0xee, 3));
  EXPECT_THAT(zeroes_, ElementsAre(std::pair(0U, 2 * kPageSize)));
  const Status packed =
      Receive({.block = 1, .encoding = PagesHead::Encoding::kZstd},
              {kPageSize | kZeroPage, 2 * kPageSize, 7 * kPageSize}, Packed(Pages({4, 5})));
  ASSERT_TRUE(packed) << packed.error().ToString();
  EXPECT_THAT(Marks(1), ElementsAre(0xee, 0xee, 4, 0xee, 0xee, 0xee, 0xee, 5));
  EXPECT_THAT(zeroes_, ElementsAre(std::pair(0U, 2 * kPageSize), std::pair(1U, kPageSize)));
}

TEST_F(PageReceiverTest, APageThatIsNotWantedIsPassedOver) {
  unwanted_ = kPageSize;
  const std::vector<std::uint64_t> words = {0, kPageSize, 2 * kPageSize};
  ASSERT_TRUE(Receive({.block = 0}, words, Pages({1, 2, 3})));
  EXPECT_THAT(Marks(0), ElementsAre(1, 0xee, 3, 0xee));
  ASSERT_TRUE(Receive({.block = 0, .encoding = PagesHead::Encoding::kZstd}, words,
                      Packed(Pages({4, 5, 6}))));
  EXPECT_THAT(Marks(0), ElementsAre(4, 0xee, 6, 0xee));
}

// Frames whose hashes are right: whoever sends them means it. No page is touched.
TEST_F(PageReceiverTest, FramesThatCannotBeAreRefusedBeforeAnythingIsTouched) {
  struct Case {
    const char* says;
    PagesHead head;
    std::vector<std::uint64_t> words;
    std::vector<std::byte> contents;
  };
  constexpr auto kZstd = PagesHead::Encoding::kZstd;
  const Case cases[] = {
      {"the memory 2, which does not exist", {.block = 2}, {0}, Pages({1})},
      {"the memory 4294967295, which", {.block = 0xffffffff}, {0}, Pages({1})},
      {"a page at 0x4000", {.block = 0}, {4 * kPageSize}, Pages({1})},
      {"a page at 0xfffffffffffff000", {.block = 0}, {~(kPageSize - 1)}, Pages({1})},
      {"a page at 0x800", {.block = 0}, {0x800}, Pages({1})},
      {"a page at 0x0", {.block = 0}, {kPageSize, 0}, Pages({1, 2})},
      {"more or less contents", {.block = 0}, {0, kPageSize}, Pages({1})},
      {"more or less contents", {.block = 0}, {kZeroPage}, Pages({1})},
      {"unknown encoding",
       {.block = 0, .encoding = static_cast<PagesHead::Encoding>(9)},
       {0},
       Pages({1})},
      {"a frame of 129 pages", {.block = 1}, std::vector<std::uint64_t>(129), {}},
      {"cannot be decompressed",
       {.block = 0, .encoding = kZstd},
       {0},
       std::vector<std::byte>(100, std::byte{1})},
      // One page that says it is three, and three that say they are one.
      {"cannot be decompressed",
       {.block = 0, .encoding = kZstd},
       {0, kPageSize, 2 * kPageSize},
       Packed(Pages({1}))},
      {"cannot be decompressed", {.block = 0, .encoding = kZstd}, {0}, Packed(Pages({1, 2, 3}))},
      // More than any frame may hold, from few bytes.
      {"cannot be decompressed",
       {.block = 0, .encoding = kZstd},
       {0},
       Packed(std::vector<std::byte>(kMostFrameBytes + kPageSize))},
  };
  for (const Case& test : cases) {
    const Status status = Receive(test.head, test.words, test.contents);
    ASSERT_FALSE(status) << test.says;
    EXPECT_EQ(status.error().code(), Errc::kMalformed) << test.says;
    EXPECT_THAT(status.error().message(), HasSubstr(test.says));
  }
  EXPECT_THAT(Marks(0), ElementsAre(0xee, 0xee, 0xee, 0xee));
  EXPECT_THAT(zeroes_, IsEmpty());
}

TEST_F(PageReceiverTest, AHeadThatSaysMoreThanItsFrameHoldsIsRefused) {
  const auto words = EncodePageWords(std::array<std::uint64_t, 1>{0});
  const PagesHead heads[] = {{.count = 2, .stored = kPageSize},
                             {.count = 128, .stored = kMostFrameBytes},
                             {.count = 1, .stored = 0},
                             {.count = 1, .stored = 2 * kPageSize},
                             {.count = 0xffffffff, .stored = 0xffffffff},
                             {.count = 0, .stored = kPageSize + 8}};
  for (const PagesHead& head : heads) {
    const Status status = Receive(EncodePagesHead(head), words, Pages({1}));
    ASSERT_FALSE(status) << head.count << " " << head.stored;
    EXPECT_EQ(status.error().code(), Errc::kMalformed) << status.error().ToString();
  }
  EXPECT_THAT(Marks(0), ElementsAre(0xee, 0xee, 0xee, 0xee));
}

TEST(PassBarrier, NobodyGoesOnBeforeAllHaveArrived) {
  PassBarrier barrier(2);
  std::atomic<bool> first_went_on = false;
  std::thread first([&] {
    EXPECT_TRUE(barrier.Arrive(1));
    first_went_on = true;
    EXPECT_TRUE(barrier.Arrive(2));
  });
  EXPECT_FALSE(first_went_on);
  EXPECT_TRUE(barrier.Arrive(1));
  EXPECT_TRUE(barrier.Arrive(2));
  first.join();
}

TEST(PassBarrier, APassThatIsNotTheNextOneIsRefused) {
  PassBarrier barrier(1);
  EXPECT_FALSE(barrier.Arrive(0));
  EXPECT_FALSE(barrier.Arrive(2));
  EXPECT_TRUE(barrier.Arrive(1));
  const Status again = barrier.Arrive(1);
  ASSERT_FALSE(again);
  EXPECT_THAT(again.error().message(), HasSubstr("ended pass 1 in pass 2"));
}

TEST(PassBarrier, WhoWaitsIsToldThatItIsOver) {
  PassBarrier barrier(2);
  std::thread waiting([&] {
    const Status status = barrier.Arrive(1);
    EXPECT_FALSE(status);
    if (!status) {
      EXPECT_EQ(status.error().os_errno(), ECANCELED);
    }
  });
  barrier.Cancel();
  waiting.join();
}

}  // namespace
}  // namespace holdfast::migration
