// SPDX-License-Identifier: Apache-2.0
#include "migration/frames.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <thread>

#include "base/hash.h"
#include "migration/socket_channel.h"

namespace holdfast::migration {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr seconds kPatience{60};

std::vector<std::byte> Bytes(std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + (i >> 8));
  return bytes;
}

// Two ends of a connection; what one side writes raw the other one reads as frames.
class FramesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int fds[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    near_ = SocketChannel::Create(UniqueFd(fds[0]), "the near one").value();
    far_ = SocketChannel::Create(UniqueFd(fds[1]), "the far one").value();
  }
  // A frame whose payload is not checked by whoever sends it.
  Status Raw(const FrameHeader& header, std::span<const std::byte> payload = {}) {
    HF_TRY_STATUS(far_->WriteAll(EncodeFrameHeader(header)));
    return payload.empty() ? Status() : far_->WriteAll(payload);
  }

  std::unique_ptr<SocketChannel> near_;
  std::unique_ptr<SocketChannel> far_;
};

TEST_F(FramesTest, APayloadOfManyPiecesArrivesAsOne) {
  const auto bytes = Bytes(3'000'000);
  FrameWriter writer(*far_);
  std::thread sender([&] {
    const Channel::Bytes parts[] = {std::span(bytes).first(5), {}, std::span(bytes).subspan(5)};
    EXPECT_TRUE(writer.Write(FrameType::kState, parts));
    EXPECT_TRUE(writer.Write(FrameType::kRun));
  });
  FrameReader reader(*near_);
  const auto payload = reader.Expect(FrameType::kState, kPatience);
  const auto run = reader.Expect(FrameType::kRun, kPatience);
  sender.join();
  ASSERT_TRUE(payload) << payload.error().ToString();
  EXPECT_EQ(*payload, bytes);
  EXPECT_TRUE(run);
  EXPECT_EQ(writer.sent(), 2 * FrameHeader::kSize + bytes.size());
}

TEST_F(FramesTest, SignsOfLifeArePassedOver) {
  FrameWriter writer(*far_);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(writer.Write(FrameType::kAlive));
  ASSERT_TRUE(writer.Write(FrameType::kPassEnd, EncodeNumber(4)));
  FrameReader reader(*near_);
  const auto header = reader.Next(kPatience);
  ASSERT_TRUE(header) << header.error().ToString();
  EXPECT_EQ(header->type, FrameType::kPassEnd);
  EXPECT_EQ(header->sequence, 3U);
  EXPECT_EQ(DecodeNumber(reader.Payload().value()).value(), 4U);
}

TEST_F(FramesTest, APayloadThatIsNotWhatWasSentIsRefused) {
  auto bytes = Bytes(100);
  const std::uint64_t hash = Hash64(bytes);
  bytes[50] ^= std::byte{1};
  ASSERT_TRUE(Raw({.type = FrameType::kState, .size = 100, .hash = hash}, bytes));
  const auto payload = FrameReader(*near_).Expect(FrameType::kState, kPatience);
  ASSERT_FALSE(payload);
  EXPECT_EQ(payload.error().code(), Errc::kMalformed);
  EXPECT_THAT(payload.error().message(), HasSubstr("frame 0 of the migration was damaged"));
}

TEST_F(FramesTest, AFrameSaidTwiceIsRefused) {
  const std::uint64_t nothing = Hash64({});
  ASSERT_TRUE(Raw({.type = FrameType::kRun, .hash = nothing}));
  ASSERT_TRUE(Raw({.type = FrameType::kRun, .hash = nothing}));
  FrameReader reader(*near_);
  ASSERT_TRUE(reader.Expect(FrameType::kRun, kPatience));
  const auto again = reader.Expect(FrameType::kRun, kPatience);
  ASSERT_FALSE(again);
  EXPECT_THAT(again.error().message(), HasSubstr("frame 0 where 1 should be"));
}

TEST_F(FramesTest, AFrameOfAnotherTypeIsRefused) {
  FrameWriter writer(*far_);
  ASSERT_TRUE(writer.Write(FrameType::kActivate));
  const auto run = FrameReader(*near_).Expect(FrameType::kRun, kPatience);
  ASSERT_FALSE(run);
  EXPECT_EQ(run.error().code(), Errc::kMalformed);
  EXPECT_THAT(run.error().message(), HasSubstr("type 6 where it makes no sense"));
}

// 64 MiB are announced and do not come: the error is the connection's, and it is there at once.
TEST_F(FramesTest, ALongPayloadThatDoesNotComeEndsWithTheConnection) {
  ASSERT_TRUE(Raw({.type = FrameType::kState, .size = 64 << 20}, Bytes(10)));
  far_.reset();
  const auto payload = FrameReader(*near_).Expect(FrameType::kState, kPatience);
  ASSERT_FALSE(payload);
  EXPECT_TRUE(IsConnectionLost(payload.error())) << payload.error().ToString();
}

TEST_F(FramesTest, WhatTheOtherSideSaysOfItsErrorIsTold) {
  FrameWriter(*far_).WriteError(Error(Errc::kSystem, "no room\x1b[2J\n"));
  const auto header = FrameReader(*near_).Next(kPatience);
  ASSERT_FALSE(header);
  EXPECT_THAT(header.error().message(), HasSubstr("the other side says: no room?[2J?"));
  EXPECT_FALSE(IsConnectionLost(header.error()));
}

TEST_F(FramesTest, AnErrorOfAnyLengthFitsIntoItsFrame) {
  FrameWriter(*far_).WriteError(Error(Errc::kSystem, std::string(100'000, 'x')));
  const auto header = FrameReader(*near_).Next(kPatience);
  ASSERT_FALSE(header);
  EXPECT_THAT(header.error().message(), HasSubstr("the other side says: xxx"));
}

TEST_F(FramesTest, SilenceIsAnErrorThatNamesThePeer) {
  const auto header = FrameReader(*near_).Next(milliseconds(20));
  ASSERT_FALSE(header);
  EXPECT_EQ(header.error().os_errno(), ETIMEDOUT);
  EXPECT_THAT(header.error().message(), HasSubstr("the near one has said nothing"));
}

// Several threads write on one connection: answers and pages.
TEST_F(FramesTest, FramesOfSeveralThreadsDoNotMix) {
  constexpr unsigned kEach = 200;
  FrameWriter writer(*far_);
  const auto write = [&](std::uint64_t mark) {
    for (unsigned i = 0; i < kEach; ++i)
      EXPECT_TRUE(writer.Write(FrameType::kPassEnd, EncodeNumber(mark)));
  };
  std::thread one(write, 1);
  std::thread two(write, 2);
  FrameReader reader(*near_);
  unsigned seen[3] = {};
  for (unsigned i = 0; i < 2 * kEach; ++i) {
    const auto payload = reader.Expect(FrameType::kPassEnd, kPatience);
    if (!payload) {
      ADD_FAILURE() << payload.error().ToString();
      near_->Shutdown();
      far_->Shutdown();
      break;
    }
    ++seen[std::min<std::uint64_t>(DecodeNumber(*payload).value_or(0), 2)];
  }
  one.join();
  two.join();
  EXPECT_EQ(seen[1], kEach);
  EXPECT_EQ(seen[2], kEach);
}

}  // namespace
}  // namespace holdfast::migration
