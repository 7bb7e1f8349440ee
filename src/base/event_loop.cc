// SPDX-License-Identifier: Apache-2.0
#include "base/event_loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <ctime>
#include <iterator>
#include <utility>

namespace holdfast {
namespace {

constexpr int kMaxEvents = 32;  // a round; more come in the next one

std::uint64_t EpollData(int fd, std::uint32_t generation) {
  return (std::uint64_t{generation} << 32) | static_cast<std::uint32_t>(fd);
}

timespec ToTimespec(std::chrono::nanoseconds duration) {
  const auto seconds = std::chrono::floor<std::chrono::seconds>(duration);
  return {.tv_sec = static_cast<time_t>(seconds.count()),
          .tv_nsec = static_cast<long>((duration - seconds).count())};
}

}  // namespace

struct EventLoop::Watch {
  std::uint32_t generation;
  FdCallback callback;
};

Result<std::unique_ptr<EventLoop>> EventLoop::Create() {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return FailErrno("epoll_create1");
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) return FailErrno("eventfd");
  // Generation 0 is nobody's watch: the wake-up itself. Edge-triggered, so that it need not be
  // read.
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.u64 = EpollData(wake.get(), 0)}};
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.get(), &event) != 0)
    return FailErrno("epoll_ctl");
  return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll), std::move(wake)));
}

EventLoop::EventLoop(UniqueFd epoll, UniqueFd wake)
    : epoll_(std::move(epoll)), wake_(std::move(wake)) {}

EventLoop::~EventLoop() = default;

Status EventLoop::AddFd(int fd, std::uint32_t epoll_events, FdCallback callback) {
  const std::uint32_t generation = next_generation_;
  epoll_event event{.events = epoll_events, .data = {.u64 = EpollData(fd, generation)}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return FailErrno("epoll_ctl");
  if (++next_generation_ == 0) next_generation_ = 1;
  watches_[fd] = std::make_shared<Watch>(Watch{generation, std::move(callback)});
  return {};
}

Status EventLoop::ModifyFd(int fd, std::uint32_t epoll_events) {
  const auto it = watches_.find(fd);
  if (it == watches_.end()) return Fail(Error::FromErrno("epoll_ctl", ENOENT));
  epoll_event event{.events = epoll_events, .data = {.u64 = EpollData(fd, it->second->generation)}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) != 0) return FailErrno("epoll_ctl");
  return {};
}

void EventLoop::RemoveFd(int fd) {
  if (watches_.erase(fd) == 0) return;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

EventLoop::TimerId EventLoop::AddTimer(Clock::time_point when, std::function<void()> callback) {
  const TimerId id = next_timer_++;
  timers_.emplace(when, std::make_pair(id, std::move(callback)));
  return id;
}

void EventLoop::CancelTimer(TimerId id) {
  const auto it = std::find_if(timers_.begin(), timers_.end(),
                               [id](const auto& timer) { return timer.second.first == id; });
  if (it != timers_.end()) timers_.erase(it);
}

EventLoop::HookId EventLoop::AddBeforeWait(std::function<void()> hook) {
  const HookId id = next_hook_++;
  hooks_.emplace(id, std::make_shared<const std::function<void()>>(std::move(hook)));
  return id;
}

void EventLoop::RemoveBeforeWait(HookId id) {
  hooks_.erase(id);
}

void EventLoop::RunHooks() {
  // By id, because a hook may remove itself or another.
  for (auto it = hooks_.begin(); it != hooks_.end();) {
    const HookId id = it->first;
    const std::shared_ptr<const std::function<void()>> hook = it->second;
    (*hook)();
    it = hooks_.upper_bound(id);
  }
}

void EventLoop::Wake() noexcept {
  const std::uint64_t one = 1;
  // Fails only when the counter is full, which is as good as written.
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
}

void EventLoop::Post(std::function<void()> work) {
  bool first = false;
  {
    const MutexLock lock(mutex_);
    first = posted_.empty();
    posted_.push_back(std::move(work));
  }
  // RunPosted takes all there is, so work behind other work needs no wake-up of its own.
  if (first) Wake();
}

void EventLoop::Quit() {
  Post([this] { quit_ = true; });
}

void EventLoop::RunPosted() {
  std::vector<std::function<void()>> work;
  {
    const MutexLock lock(mutex_);
    work.swap(posted_);
  }
  for (auto it = work.begin(); it != work.end(); ++it) {
    (*it)();
    if (!quit_) continue;
    const MutexLock lock(mutex_);
    posted_.insert(posted_.begin(), std::make_move_iterator(it + 1),
                   std::make_move_iterator(work.end()));
    if (!posted_.empty()) Wake();
    return;
  }
}

void EventLoop::RunTimers() {
  if (timers_.empty()) return;
  const Clock::time_point now = Clock::now();
  // Timers that the callbacks add wait for the next round, so that they cannot starve the fds.
  const TimerId limit = next_timer_;
  while (!quit_) {
    const auto it = std::find_if(timers_.begin(), timers_.end(), [&](const auto& timer) {
      return timer.first > now || timer.second.first < limit;
    });
    if (it == timers_.end() || it->first > now) return;
    const std::function<void()> callback = std::move(it->second.second);
    timers_.erase(it);
    callback();
  }
}

Status EventLoop::RunOnce(std::optional<std::chrono::milliseconds> timeout) {
  RunHooks();
  std::optional<std::chrono::nanoseconds> wait = timeout;
  if (!timers_.empty()) {
    const std::chrono::nanoseconds until =
        std::max<std::chrono::nanoseconds>(timers_.begin()->first - Clock::now(), {});
    wait = wait ? std::min(*wait, until) : until;
  }
  timespec deadline{};
  if (wait) deadline = ToTimespec(*wait);

  std::array<epoll_event, kMaxEvents> events{};
  const int count =
      ::epoll_pwait2(epoll_.get(), events.data(), kMaxEvents, wait ? &deadline : nullptr, nullptr);
  if (count < 0 && errno != EINTR) return FailErrno("epoll_pwait2");

  for (int i = 0; i < count && !quit_; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    const auto fd = static_cast<int>(event.data.u64 & 0xffffffff);
    const auto generation = static_cast<std::uint32_t>(event.data.u64 >> 32);
    const auto it = watches_.find(fd);
    // An earlier callback of this round may have removed it, and even reused its number.
    if (it == watches_.end() || it->second->generation != generation) continue;
    const std::shared_ptr<Watch> watch = it->second;  // the callback may remove itself
    watch->callback(event.events);
  }
  if (!quit_) RunPosted();
  RunTimers();
  return {};
}

Status EventLoop::Run() {
  while (!quit_) HF_TRY_STATUS(RunOnce(std::nullopt));
  quit_ = false;
  return {};
}

}  // namespace holdfast
