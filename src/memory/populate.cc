// SPDX-License-Identifier: Apache-2.0
#include "memory/populate.h"

#include <fmt/format.h>
#include <holdfast/units.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

// Linux 5.14; glibc 2.36 has it, older ones do not.
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

namespace holdfast {
namespace {

// Small enough that giving up is prompt (a few ms on a machine of today), large enough that the
// system calls between two steps cost nothing.
constexpr std::uint64_t kStep = 8 * kMiB;
constexpr std::chrono::milliseconds kReportEvery{100};

// The work that several threads take their steps from. They share the atomics; mutex_ guards
// finished_ and error_, and changed_ is told when finished_ grows.
class Job {
 public:
  Job(std::span<std::byte> mapping, const PopulateOptions& options)
      : mapping_(mapping),
        options_(options),
        step_(AlignUp(std::max(kStep, options.page_size), options.page_size)) {}

  // One thread's share: steps until there are none left, or someone failed or gave up.
  void Work() {
    const auto policy = ThreadNumaPolicy::Set(options_.thread_policy);
    if (!policy) return Finish(policy.error());
    while (!stop_.load(std::memory_order_relaxed)) {
      const std::uint64_t offset = next_.fetch_add(step_, std::memory_order_relaxed);
      if (offset >= mapping_.size()) break;
      const std::uint64_t length = std::min<std::uint64_t>(step_, mapping_.size() - offset);
      if (const int error = PopulateStep(mapping_.subspan(offset, length)); error != 0)
        return Finish(Error::FromErrno("MADV_POPULATE_WRITE", error));
      done_.fetch_add(length, std::memory_order_relaxed);
    }
    Finish(std::nullopt);
  }

  // Waits until `threads` have ended their Work, and reports meanwhile.
  Status Wait(unsigned threads) {
    std::unique_lock lock(mutex_);
    bool gave_up = false;
    while (finished_ < threads) {
      if (changed_.wait_for(lock, kReportEvery, [&] { return finished_ == threads; })) break;
      if (gave_up || !options_.progress) continue;
      lock.unlock();
      gave_up = !options_.progress(done_.load(std::memory_order_relaxed));
      if (gave_up) stop_.store(true, std::memory_order_relaxed);
      lock.lock();
    }
    if (error_) return Fail(*error_);
    if (gave_up) return Fail(Error(Errc::kSystem, "interrupted", {}, EINTR));
    return {};
  }

 private:
  int PopulateStep(std::span<std::byte> step) const noexcept {
    const int advice = options_.write ? MADV_POPULATE_WRITE : MADV_POPULATE_READ;
    // EAGAIN and EINTR: the kernel was interrupted half-way; what is done stays done.
    while (::madvise(step.data(), step.size(), advice) != 0) {
      if (errno != EAGAIN && errno != EINTR) return errno;
      if (stop_.load(std::memory_order_relaxed)) return 0;
    }
    return 0;
  }

  void Finish(std::optional<Error> error) {
    const std::lock_guard lock(mutex_);
    if (error) {
      stop_.store(true, std::memory_order_relaxed);
      if (!error_) error_ = std::move(error);
    }
    ++finished_;
    changed_.notify_all();
  }

  const std::span<std::byte> mapping_;
  const PopulateOptions& options_;
  const std::uint64_t step_;
  std::atomic<std::uint64_t> next_ = 0;
  std::atomic<std::uint64_t> done_ = 0;
  std::atomic<bool> stop_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  unsigned finished_ = 0;
  std::optional<Error> error_;
};

}  // namespace

Status Populate(std::span<std::byte> mapping, const PopulateOptions& options) {
  Job job(mapping, options);
  const std::uint64_t steps = mapping.size() / kStep + 1;
  const auto wanted =
      static_cast<unsigned>(std::min<std::uint64_t>(std::max(options.threads, 1U), steps));
  // The caller's own thread has to stay free when somebody wants to hear of it.
  std::vector<std::jthread> threads;
  if (wanted > 1 || options.progress) {
    try {
      while (threads.size() < wanted) threads.emplace_back([&job] { job.Work(); });
    } catch (const std::system_error&) {
      // As many as the host gives; without any, this one does it.
    }
  }
  if (!threads.empty()) return job.Wait(static_cast<unsigned>(threads.size()));
  job.Work();
  return job.Wait(1);
}

}  // namespace holdfast
