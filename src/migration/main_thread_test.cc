// SPDX-License-Identifier: Apache-2.0
#include "migration/main_thread.h"

#include <gtest/gtest.h>

#include <optional>
#include <thread>

namespace holdfast::migration {
namespace {

class MainThreadTest : public ::testing::Test {
 protected:
  std::unique_ptr<EventLoop> loop_ = EventLoop::Create().value();
};

TEST_F(MainThreadTest, WorkRunsOnTheLoopsThreadAndItsErrorComesBack) {
  MainThread main(*loop_);
  std::thread::id ran_on;
  std::optional<Status> answer;
  std::thread job([&] {
    answer = main.Run([&]() -> Status {
      ran_on = std::this_thread::get_id();
      return Fail(Errc::kExhausted, "no room");
    });
    loop_->Quit();
  });
  ASSERT_TRUE(loop_->Run());
  job.join();
  EXPECT_EQ(ran_on, std::this_thread::get_id());
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->error().message(), "no room");
}

// The main thread ends a job by joining its thread, which must not wait for the main thread then.
TEST_F(MainThreadTest, NobodyWaitsForAMainThreadThatHasClosed) {
  auto main = std::make_unique<MainThread>(*loop_);
  bool ran = false;
  std::optional<Status> answer;
  std::thread job([&] {
    answer = main->Run([&]() -> Status {
      ran = true;
      return {};
    });
  });
  main->Close();
  job.join();
  ASSERT_TRUE(answer.has_value());
  EXPECT_FALSE(*answer);
  main->Post([&] { ran = true; });
  main.reset();
  ASSERT_TRUE(loop_->RunOnce(std::chrono::milliseconds(0)));
  EXPECT_FALSE(ran);
}

}  // namespace
}  // namespace holdfast::migration
