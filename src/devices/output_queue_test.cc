// SPDX-License-Identifier: Apache-2.0
#include "devices/output_queue.h"

#include <gtest/gtest.h>

#include <string>

#include "devices/test_support.h"

namespace holdfast::devices {
namespace {

using testing::Bytes;

std::string Queued(const OutputQueue& queue) {
  std::array<iovec, 2> pieces{};
  const int count = queue.Peek(pieces);
  std::string text;
  for (int i = 0; i < count; ++i) {
    const iovec& piece = pieces.at(static_cast<std::size_t>(i));
    text.append(static_cast<const char*>(piece.iov_base), piece.iov_len);
  }
  return text;
}

TEST(OutputQueue, KeepsTheOrderAroundItsEnd) {
  OutputQueue queue(8);
  queue.Open();
  EXPECT_EQ(queue.Append(Bytes("abcdef")).taken, 6U);
  queue.Consume(4);
  EXPECT_EQ(queue.Append(Bytes("ghijkl")).taken, 6U);
  EXPECT_EQ(Queued(queue), "efghijkl");
  queue.Consume(3);
  EXPECT_EQ(Queued(queue), "hijkl");
  queue.Consume(100);
  EXPECT_EQ(Queued(queue), "");
}

TEST(OutputQueue, TakesWhatFits) {
  OutputQueue queue(4);
  queue.Open();
  EXPECT_EQ(queue.Append(Bytes("abcdef")).taken, 4U);
  EXPECT_EQ(queue.Append(Bytes("g")).taken, 0U);
  EXPECT_EQ(Queued(queue), "abcd");
}

TEST(OutputQueue, WhoWasRefusedHearsOnceAndOnlyWhenHalfIsFree) {
  OutputQueue queue(8);
  queue.Open();
  queue.Append(Bytes("12345678"));
  queue.Consume(8);
  EXPECT_FALSE(queue.TakeWantsRoom()) << "nobody was refused";
  queue.Append(Bytes("123456789"));
  queue.Consume(3);
  EXPECT_FALSE(queue.TakeWantsRoom());
  queue.Consume(1);
  EXPECT_TRUE(queue.TakeWantsRoom());
  EXPECT_FALSE(queue.TakeWantsRoom());
}

TEST(OutputQueue, WakesOncePerSleep) {
  OutputQueue queue(8);
  queue.Open();
  EXPECT_TRUE(queue.Append(Bytes("a")).wake);
  EXPECT_FALSE(queue.Append(Bytes("b")).wake);
  EXPECT_FALSE(queue.TrySleep()) << "there is something to do";
  queue.Consume(2);
  EXPECT_FALSE(queue.Append(Bytes("c")).wake) << "still awake";
  queue.Consume(1);
  EXPECT_TRUE(queue.TrySleep());
  EXPECT_TRUE(queue.Append(Bytes("d")).wake);
}

TEST(OutputQueue, WakesAgainWhenItFillsUp) {
  OutputQueue queue(8);
  queue.Open();
  EXPECT_TRUE(queue.Append(Bytes("1234")).wake);
  EXPECT_FALSE(queue.Append(Bytes("5")).wake);
  EXPECT_TRUE(queue.Append(Bytes("6")).wake);
  EXPECT_FALSE(queue.Append(Bytes("7")).wake);
}

TEST(OutputQueue, ClosedItTakesAndDropsEverything) {
  OutputQueue queue(4);
  EXPECT_EQ(queue.Append(Bytes("never opened")).taken, 12U);
  queue.Open();
  queue.Append(Bytes("abcdef"));
  queue.Close();
  EXPECT_EQ(Queued(queue), "");
  EXPECT_TRUE(queue.TakeWantsRoom());
  const OutputQueue::Appended appended = queue.Append(Bytes("ghijkl"));
  EXPECT_EQ(appended.taken, 6U);
  EXPECT_FALSE(appended.wake);
  queue.Open();
  EXPECT_EQ(Queued(queue), "");
  EXPECT_TRUE(queue.Append(Bytes("x")).wake);
}

}  // namespace
}  // namespace holdfast::devices
