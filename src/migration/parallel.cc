// SPDX-License-Identifier: Apache-2.0
#include "migration/parallel.h"

#include <algorithm>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/thread_annotations.h"

namespace holdfast::migration {

Status ForEachInParallel(std::size_t count, const std::atomic<bool>& cancelled,
                         const std::function<Status(std::size_t)>& work) {
  std::atomic<std::size_t> next = 0;
  std::atomic<bool> failed = false;
  Mutex mutex;  // of `first`
  Status first;
  const auto run = [&] {
    while (!failed.load(std::memory_order_relaxed)) {
      const std::size_t i = next.fetch_add(1, std::memory_order_relaxed);
      if (i >= count) return;
      Status status = cancelled.load(std::memory_order_relaxed)
                          ? Status(Fail(Errc::kInvalidArgument, "it was cancelled"))
                          : work(i);
      if (status) continue;
      const MutexLock lock(mutex);
      if (!failed.exchange(true)) first = std::move(status);
    }
  };
  constexpr std::size_t kMostThreads = 8;
  const std::size_t threads =
      std::min({count, kMostThreads, std::size_t{std::thread::hardware_concurrency()}});
  std::vector<std::thread> others;
  for (std::size_t i = 1; i < threads; ++i) {
    try {
      others.emplace_back(run);
    } catch (const std::system_error&) {
      break;  // the host gives no more; those there are do it
    }
  }
  run();
  for (std::thread& other : others) other.join();
  return first;
}

}  // namespace holdfast::migration
