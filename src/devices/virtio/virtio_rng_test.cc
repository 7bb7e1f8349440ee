// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/virtio_rng.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>

#include "devices/virtio/test_driver.h"

namespace holdfast::devices::virtio {
namespace {

using ::testing::HasSubstr;

class VirtioRngTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto loop = EventLoop::Create();
    ASSERT_TRUE(loop);
    loop_ = *std::move(loop);
    int ends[2];
    ASSERT_EQ(::pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    source_.reset(ends[0]);
    feed_.reset(ends[1]);
  }
  void Feed(std::string_view text) {
    ASSERT_EQ(::write(feed_.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }

  std::unique_ptr<EventLoop> loop_;
  UniqueFd source_;
  UniqueFd feed_;
};

TEST_F(VirtioRngTest, GivesWhatTheSourceHasAndWaitsForMore) {
  VirtioRng rng(*loop_, std::move(source_), {});
  TestDriver driver(rng, *loop_);
  ASSERT_TRUE(driver.Start());
  ASSERT_NO_FATAL_FAILURE(Feed("abc"));
  auto answer = driver.Ask(0, {}, 8);
  ASSERT_TRUE(answer) << answer.error().ToString();
  EXPECT_EQ(answer->written, 3U);
  EXPECT_TRUE(std::ranges::equal(std::span(answer->data).first(3), BytesOf("abc")));

  const GuestAddress buffer = driver.ram().Allocate(8);
  const TestBuffer request{buffer, 8, true};
  driver.Send(0, {&request, 1});
  EXPECT_FALSE(driver.Take(0)) << "there is nothing to give";
  ASSERT_NO_FATAL_FAILURE(Feed("defg"));
  EXPECT_TRUE(driver.RunUntil([&] { return driver.Take(0).has_value(); }));
  EXPECT_EQ(driver.ram().Get(buffer, 4), BytesOf("defg"));
}

TEST_F(VirtioRngTest, KeepsToItsQuota) {
  VirtioRng rng(*loop_, std::move(source_),
                {.max_bytes = 4, .period = std::chrono::milliseconds(1)});
  TestDriver driver(rng, *loop_);
  ASSERT_TRUE(driver.Start());
  ASSERT_NO_FATAL_FAILURE(Feed("0123456789"));
  for (int i = 0; i < 2; ++i) {
    auto answer = driver.Ask(0, {}, 64);
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->written, 4U);
  }
}

TEST_F(VirtioRngTest, AResetWhileItWaitsForgetsTheRequest) {
  VirtioRng rng(*loop_, std::move(source_), {});
  TestDriver driver(rng, *loop_);
  ASSERT_TRUE(driver.Start());
  const TestBuffer request{driver.ram().Allocate(8), 8, true};
  driver.Send(0, {&request, 1});
  driver.Stop();
  ASSERT_NO_FATAL_FAILURE(Feed("late"));
  ASSERT_TRUE(loop_->RunOnce(std::chrono::milliseconds(0)));
  ASSERT_TRUE(driver.Start());
  auto answer = driver.Ask(0, {}, 8);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->written, 4U) << "nobody took them";
}

TEST_F(VirtioRngTest, ASourceThatEndsBreaksTheDeviceAndNothingElse) {
  VirtioRng rng(*loop_, std::move(source_), {});
  TestDriver driver(rng, *loop_);
  ASSERT_TRUE(driver.Start());
  feed_.reset();
  EXPECT_FALSE(driver.Ask(0, {}, 8));
  EXPECT_THAT(driver.needs_reset(), HasSubstr("reading random numbers"));
}

TEST_F(VirtioRngTest, ARequestWithoutRoomIsAnsweredWithNothing) {
  VirtioRng rng(*loop_, std::move(source_), {});
  TestDriver driver(rng, *loop_);
  ASSERT_TRUE(driver.Start());
  auto answer = driver.Ask(0, BytesOf("only to read"));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->written, 0U);
}

}  // namespace
}  // namespace holdfast::devices::virtio
