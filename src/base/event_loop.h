// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

#include "base/thread_annotations.h"

namespace holdfast {

/// The main thread's loop: file descriptors (epoll), timers, and work posted by other threads.
///
/// Thread-safety: Post() and Quit() from any thread; everything else, and every callback, on the
/// thread that calls Run().
class EventLoop {
 public:
  using FdCallback = std::function<void(std::uint32_t epoll_events)>;
  using Clock = std::chrono::steady_clock;
  using TimerId = std::uint64_t;
  using HookId = std::uint64_t;

  static Result<std::unique_ptr<EventLoop>> Create();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;
  ~EventLoop();

  /// Calls `callback` whenever `fd` has one of `epoll_events` (EPOLLIN, EPOLLOUT …, EPOLLET for
  /// edges only). The fd stays the caller's and must be removed before it is closed. Fails where
  /// epoll does: a regular file (EPERM) is always ready and cannot be watched.
  Status AddFd(int fd, std::uint32_t epoll_events, FdCallback callback);
  /// Changes what a watched fd is watched for; 0 keeps only errors and hang-ups.
  Status ModifyFd(int fd, std::uint32_t epoll_events);
  /// Stops watching; safe inside a callback, also the fd's own.
  void RemoveFd(int fd);

  /// Runs `callback` once, at `when` or soon after.
  TimerId AddTimer(Clock::time_point when, std::function<void()> callback);
  /// Forgets a timer that has not fired; does nothing for one that has.
  void CancelTimer(TimerId id);

  /// Calls `hook` each time before the loop waits, when everything that was ready has been handled:
  /// for libraries that say anew before every wait what they wait for. It may change fds and
  /// timers.
  HookId AddBeforeWait(std::function<void()> hook);
  /// Forgets a hook; safe inside one.
  void RemoveBeforeWait(HookId id);

  /// Runs `work` on the loop's thread, in the order posted.
  void Post(std::function<void()> work) HF_EXCLUDES(mutex_);

  /// Runs until Quit().
  Status Run();
  /// Makes Run() return after the callback under way; the next Run() if none is under way. Work
  /// posted later stays for the next Run() or RunOnce().
  void Quit();
  /// Handles what is ready, waiting at most `timeout` for the first event (no limit if empty).
  Status RunOnce(std::optional<std::chrono::milliseconds> timeout);

 private:
  struct Watch;
  EventLoop(UniqueFd epoll, UniqueFd wake);
  void Wake() noexcept;
  void RunPosted() HF_EXCLUDES(mutex_);
  void RunTimers();
  void RunHooks();

  UniqueFd epoll_;
  UniqueFd wake_;  // eventfd: Post() and Quit() write it
  std::map<int, std::shared_ptr<Watch>> watches_;
  std::uint32_t next_generation_ = 1;  // tells a reused fd number from its predecessor
  std::multimap<Clock::time_point, std::pair<TimerId, std::function<void()>>> timers_;
  TimerId next_timer_ = 1;
  std::map<HookId, std::shared_ptr<const std::function<void()>>> hooks_;
  HookId next_hook_ = 1;
  bool quit_ = false;  // loop thread only; Quit() posts

  Mutex mutex_;
  std::vector<std::function<void()>> posted_ HF_GUARDED_BY(mutex_);
};

}  // namespace holdfast
