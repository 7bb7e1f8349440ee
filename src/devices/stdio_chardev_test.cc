// SPDX-License-Identifier: Apache-2.0
#include "devices/stdio_chardev.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <fstream>

#include "devices/chardev_test_support.h"

namespace holdfast::devices {
namespace {

using testing::Bytes;
using testing::Pattern;
using testing::Pipe;
using testing::Printer;
using testing::ReadSome;
using testing::SetNonBlocking;
using testing::Text;

constexpr std::chrono::milliseconds kAWhile{30};
constexpr int kFewTurns = 10;

class StdioChardevTest : public testing::ChardevTest {
 protected:
  void Open(int input, int output) {
    auto made = StdioChardev::CreateOn(*loop_, input, output, true);
    ASSERT_TRUE(made) << made.error().message();
    chardev_ = *std::move(made);
  }

  Pipe in_;
  Pipe out_;
  std::unique_ptr<Chardev> chardev_;
};

TEST_F(StdioChardevTest, AReaderWhoComesLateGetsAMegabyteWhole) {
  Open(in_.read.get(), out_.write.get());
  SetNonBlocking(out_.read.get());
  const std::string text = Pattern(1'000'000);
  std::string got;
  Printer printer(*chardev_, text, 16);
  // Nobody reads: the loop goes on turning, and in the end the printer has no room.
  EXPECT_TRUE(Until([&] { return printer.stalled(); }));
  TurnsWithin(kAWhile);
  EXPECT_LE(TurnsWithin(kAWhile), kFewTurns) << "no busy loop for a full pipe";
  EXPECT_TRUE(printer.stalled());
  EXPECT_TRUE(Until([&] { return ReadSome(out_.read.get(), got) && got.size() == text.size(); }));
  EXPECT_EQ(got, text);
}

TEST_F(StdioChardevTest, TheCallersDescriptorsStayBlocking) {
  Open(in_.read.get(), out_.write.get());
  EXPECT_EQ(::fcntl(in_.read.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_EQ(::fcntl(out_.write.get(), F_GETFL) & O_NONBLOCK, 0);
}

TEST_F(StdioChardevTest, InputIsOfferedAgainUntilItIsTaken) {
  Open(in_.read.get(), out_.write.get());
  const std::string text = Pattern(100'000);
  std::size_t room = 0;
  chardev_->SetReceiver([&](std::span<const std::byte> data) {
    const std::size_t taken = std::min(data.size(), room);
    room -= taken;
    input_ += Text(data.first(taken));
    return taken;
  });
  std::thread writer([&] {
    EXPECT_EQ(::write(in_.write.get(), text.data(), text.size()),
              static_cast<ssize_t>(text.size()));
    in_.write.reset();
  });
  TurnsWithin(kAWhile);
  EXPECT_EQ(input_, "");
  EXPECT_LE(TurnsWithin(kAWhile), kFewTurns) << "no busy loop for a receiver that takes nothing";
  EXPECT_TRUE(Until([&] {
    if (room == 0) {
      room = 1000;
      chardev_->ReceiverReady();
    }
    return input_.size() == text.size();
  }));
  writer.join();
  EXPECT_EQ(input_, text);
}

TEST_F(StdioChardevTest, TheEndOfTheInputEndsOnlyTheInput) {
  Open(in_.read.get(), out_.write.get());
  Collect(*chardev_);
  EXPECT_EQ(::write(in_.write.get(), "bye", 3), 3);
  in_.write.reset();
  EXPECT_TRUE(Until([&] { return input_ == "bye"; }));
  TurnsWithin(kAWhile);
  EXPECT_LE(TurnsWithin(kAWhile), kFewTurns) << "no busy loop at the end of the input";
  SetNonBlocking(out_.read.get());
  std::string got;
  chardev_->Write(Bytes("still here"));
  EXPECT_TRUE(Until([&] {
    ReadSome(out_.read.get(), got);
    return got == "still here";
  }));
}

TEST_F(StdioChardevTest, AReaderWhoGoesAwayDoesNotStopTheGuest) {
  Open(in_.read.get(), out_.write.get());
  out_.read.reset();
  Printer printer(*chardev_, Pattern(300'000), 1000);
  EXPECT_TRUE(Until([&] { return printer.done(); }));
}

TEST_F(StdioChardevTest, InputAndOutputMayBeRegularFiles) {
  std::ofstream(Path("in")) << Pattern(10'000);
  const UniqueFd in(::open(Path("in").c_str(), O_RDONLY | O_CLOEXEC));
  const UniqueFd out(::open(Path("out").c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
  Open(in.get(), out.get());
  Collect(*chardev_);
  EXPECT_TRUE(Until([&] { return input_.size() == 10'000; }));
  EXPECT_EQ(input_, Pattern(10'000));
  chardev_->Write(Bytes("out"));
  EXPECT_TRUE(Until([&] { return std::filesystem::file_size(Path("out")) == 3; }));
  TurnsWithin(kAWhile);
  EXPECT_LE(TurnsWithin(kAWhile), kFewTurns);
}

TEST_F(StdioChardevTest, InputFromDevNullEndsQuietly) {
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  Open(null.get(), null.get());
  Collect(*chardev_);
  TurnsWithin(kAWhile);
  EXPECT_LE(TurnsWithin(kAWhile), kFewTurns);
  EXPECT_EQ(chardev_->Write(Bytes("gone")), 4U);
}

TEST_F(StdioChardevTest, InputAndOutputMayBeOneSocket) {
  std::array<int, 2> fds{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds.data()), 0);
  const UniqueFd ours(fds[0]);
  UniqueFd theirs(fds[1]);
  Open(ours.get(), ours.get());
  Collect(*chardev_);
  EXPECT_EQ(::write(theirs.get(), "in", 2), 2);
  EXPECT_TRUE(Until([&] { return input_ == "in"; }));
  SetNonBlocking(theirs.get());
  std::string got;
  chardev_->Write(Bytes("out"));
  EXPECT_TRUE(Until([&] {
    ReadSome(theirs.get(), got);
    return got == "out";
  }));
  theirs.reset();
  Printer printer(*chardev_, Pattern(300'000), 1000);
  EXPECT_TRUE(Until([&] { return printer.done(); })) << "and the peer may go";
}

TEST_F(StdioChardevTest, ThereIsOneAtATime) {
  Open(in_.read.get(), out_.write.get());
  const auto second = MakeChardev(*loop_, "stdio");
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().message(),
            "character device 'stdio': cannot use stdio by multiple character devices");
  chardev_.reset();
  Open(in_.read.get(), out_.write.get());
}

TEST_F(StdioChardevTest, FlushWaitsForASlowReaderButNotForever) {
  Open(in_.read.get(), out_.write.get());
  const std::string text = Pattern(100'000);  // more than a pipe holds
  std::size_t sent = chardev_->Write(Bytes(text));
  std::string got;
  std::thread reader([&] {
    while (got.size() < sent && ReadSome(out_.read.get(), got)) {
    }
  });
  chardev_->Flush();
  reader.join();
  EXPECT_EQ(got, text.substr(0, sent));

  while (chardev_->Write(Bytes(text)) != 0) ASSERT_TRUE(loop_->RunOnce(kAWhile));
  const auto start = EventLoop::Clock::now();
  chardev_->Flush();
  EXPECT_LT(EventLoop::Clock::now() - start, std::chrono::seconds(30));
}

}  // namespace
}  // namespace holdfast::devices
