// SPDX-License-Identifier: Apache-2.0
#include "base/event_loop.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <string>
#include <thread>
#include <vector>

namespace holdfast {
namespace {

using std::chrono::milliseconds;

struct Pipe {
  Pipe() {
    std::array<int, 2> fds{};
    if (::pipe2(fds.data(), O_CLOEXEC | O_NONBLOCK) != 0) return;
    read.reset(fds[0]);
    write.reset(fds[1]);
  }
  void Fill() const { EXPECT_EQ(::write(write.get(), "x", 1), 1); }
  UniqueFd read;
  UniqueFd write;
};

class EventLoopTest : public testing::Test {
 protected:
  void Step() { ASSERT_TRUE(loop_->RunOnce(milliseconds(0))); }

  std::unique_ptr<EventLoop> loop_ = *EventLoop::Create();
};

TEST_F(EventLoopTest, CallsBackOnlyForWhatIsReady) {
  Pipe quiet;
  Pipe full;
  std::string calls;
  ASSERT_TRUE(loop_->AddFd(quiet.read.get(), EPOLLIN, [&](std::uint32_t) { calls += 'q'; }));
  ASSERT_TRUE(loop_->AddFd(full.read.get(), EPOLLIN, [&](std::uint32_t events) {
    EXPECT_EQ(events, std::uint32_t{EPOLLIN});
    calls += 'f';
  }));
  full.Fill();
  Step();
  Step();
  EXPECT_EQ(calls, "ff") << "level-triggered: unread data is reported again";
}

TEST_F(EventLoopTest, ModifyWithoutEventsSilencesAndBringsBack) {
  Pipe pipe;
  int calls = 0;
  ASSERT_TRUE(loop_->AddFd(pipe.read.get(), EPOLLIN, [&](std::uint32_t) { ++calls; }));
  pipe.Fill();
  ASSERT_TRUE(loop_->ModifyFd(pipe.read.get(), 0));
  Step();
  EXPECT_EQ(calls, 0);
  ASSERT_TRUE(loop_->ModifyFd(pipe.read.get(), EPOLLIN));
  Step();
  EXPECT_EQ(calls, 1);
}

TEST_F(EventLoopTest, RefusesARegularFileAndAnUnknownFd) {
  std::array<char, 32> path{"/tmp/event_loop_test_XXXXXX"};
  const UniqueFd file(::mkstemp(path.data()));
  ::unlink(path.data());
  const Status added = loop_->AddFd(file.get(), EPOLLIN, [](std::uint32_t) {});
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().os_errno(), EPERM);
  EXPECT_FALSE(loop_->ModifyFd(file.get(), EPOLLIN));
  loop_->RemoveFd(file.get());  // not watched: nothing happens
}

TEST_F(EventLoopTest, ACallbackMayRemoveItself) {
  Pipe pipe;
  int calls = 0;
  ASSERT_TRUE(loop_->AddFd(pipe.read.get(), EPOLLIN, [&](std::uint32_t) {
    loop_->RemoveFd(pipe.read.get());
    ++calls;
  }));
  pipe.Fill();
  Step();
  Step();
  EXPECT_EQ(calls, 1);
}

TEST_F(EventLoopTest, WhatAnEarlierCallbackOfTheRoundRemovedIsNotCalled) {
  Pipe a;
  Pipe b;
  int calls = 0;
  const auto only_one = [&](std::uint32_t) {
    ++calls;
    loop_->RemoveFd(a.read.get());
    loop_->RemoveFd(b.read.get());
  };
  ASSERT_TRUE(loop_->AddFd(a.read.get(), EPOLLIN, only_one));
  ASSERT_TRUE(loop_->AddFd(b.read.get(), EPOLLIN, only_one));
  a.Fill();
  b.Fill();
  Step();
  EXPECT_EQ(calls, 1);
}

TEST_F(EventLoopTest, AReusedFdNumberDoesNotGetItsPredecessorsEvent) {
  Pipe a;
  Pipe b;
  int reused = 0;
  const auto replace_other = [&](Pipe& other) {
    loop_->RemoveFd(other.read.get());
    ASSERT_TRUE(loop_->AddFd(other.read.get(), EPOLLOUT, [&](std::uint32_t) { ++reused; }));
  };
  ASSERT_TRUE(loop_->AddFd(a.read.get(), EPOLLIN, [&](std::uint32_t) {
    loop_->RemoveFd(a.read.get());
    replace_other(b);
  }));
  ASSERT_TRUE(loop_->AddFd(b.read.get(), EPOLLIN, [&](std::uint32_t) {
    loop_->RemoveFd(b.read.get());
    replace_other(a);
  }));
  a.Fill();
  b.Fill();
  Step();
  EXPECT_EQ(reused, 0);
}

TEST_F(EventLoopTest, TimersFireInTheOrderOfTheirTimes) {
  const auto now = EventLoop::Clock::now();
  std::string order;
  loop_->AddTimer(now + milliseconds(3), [&] { order += '3'; });
  loop_->AddTimer(now + milliseconds(1), [&] { order += '1'; });
  loop_->AddTimer(now + milliseconds(2), [&] { order += '2'; });
  while (order.size() < 3) ASSERT_TRUE(loop_->RunOnce(std::nullopt));
  EXPECT_EQ(order, "123");
  EXPECT_GE(EventLoop::Clock::now(), now + milliseconds(3));
}

TEST_F(EventLoopTest, ATimerMayCancelAnotherThatIsDueToo) {
  const auto now = EventLoop::Clock::now();
  int late = 0;
  EventLoop::TimerId second = 0;
  loop_->AddTimer(now - milliseconds(2), [&] { loop_->CancelTimer(second); });
  second = loop_->AddTimer(now - milliseconds(1), [&] { ++late; });
  Step();
  EXPECT_EQ(late, 0);
  loop_->CancelTimer(second);  // gone already: nothing happens
}

TEST_F(EventLoopTest, ATimerThatRearmsItselfInThePastDoesNotHoldTheLoop) {
  int fired = 0;
  std::function<void()> again = [&] {
    ++fired;
    loop_->AddTimer(EventLoop::Clock::now() - milliseconds(1), again);
  };
  again();
  Step();
  EXPECT_EQ(fired, 2);
  Step();
  EXPECT_EQ(fired, 3);
}

TEST_F(EventLoopTest, WorkFromOtherThreadsRunsHereInOrder) {
  constexpr int kEach = 1000;
  std::array<std::vector<int>, 2> seen;
  const auto here = std::this_thread::get_id();
  int left = 2 * kEach;
  std::array<std::thread, 2> threads;
  for (std::size_t t = 0; t < threads.size(); ++t) {
    threads.at(t) = std::thread([&, t] {
      for (int i = 0; i < kEach; ++i) {
        loop_->Post([&, t, i] {
          EXPECT_EQ(std::this_thread::get_id(), here);
          seen.at(t).push_back(i);
          if (--left == 0) loop_->Quit();
        });
      }
    });
  }
  ASSERT_TRUE(loop_->Run());
  for (std::thread& thread : threads) thread.join();
  for (const auto& order : seen) {
    ASSERT_EQ(order.size(), std::size_t{kEach});
    EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  }
}

TEST_F(EventLoopTest, QuitBeforeRunEndsIt) {
  loop_->Quit();
  ASSERT_TRUE(loop_->Run());
}

TEST_F(EventLoopTest, WorkPostedBehindQuitWaitsForTheNextRun) {
  std::string order;
  loop_->Post([&] { order += 'a'; });
  loop_->Quit();
  loop_->Post([&] { order += 'b'; });
  ASSERT_TRUE(loop_->Run());
  EXPECT_EQ(order, "a");
  loop_->Quit();
  ASSERT_TRUE(loop_->Run());
  EXPECT_EQ(order, "ab");
}

TEST_F(EventLoopTest, RunOnceReturnsAfterItsTimeout) {
  const auto start = EventLoop::Clock::now();
  ASSERT_TRUE(loop_->RunOnce(milliseconds(5)));
  EXPECT_GE(EventLoop::Clock::now() - start, milliseconds(5));
}

TEST_F(EventLoopTest, HooksRunBeforeEachWaitUntilTheyAreRemoved) {
  std::string order;
  const EventLoop::HookId first = loop_->AddBeforeWait([&] { order += 'a'; });
  EventLoop::HookId second = 0;
  second = loop_->AddBeforeWait([&] {
    order += 'b';
    loop_->RemoveBeforeWait(second);
  });
  loop_->AddBeforeWait([&] { order += 'c'; });
  ASSERT_TRUE(loop_->RunOnce(milliseconds(0)));
  ASSERT_TRUE(loop_->RunOnce(milliseconds(0)));
  loop_->RemoveBeforeWait(first);
  ASSERT_TRUE(loop_->RunOnce(milliseconds(0)));
  EXPECT_EQ(order, "abcacc");
}

TEST_F(EventLoopTest, ATimerThatAHookSetsEndsTheWait) {
  bool fired = false;
  loop_->AddBeforeWait([&] { loop_->AddTimer(EventLoop::Clock::now(), [&] { fired = true; }); });
  ASSERT_TRUE(loop_->RunOnce(std::nullopt));
  EXPECT_TRUE(fired);
}

}  // namespace
}  // namespace holdfast
