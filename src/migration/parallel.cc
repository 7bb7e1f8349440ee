// SPDX-License-Identifier: Apache-2.0
#include "migration/parallel.h"

#include <algorithm>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "base/thread_annotations.h"

namespace holdfast::migration {

Status InParallel(std::size_t count, const std::atomic<bool>& cancelled,
                  const std::function<Status(const TakeNumber&)>& work) {
  std::atomic<std::size_t> next = 0;
  std::atomic<bool> failed = false;
  Mutex mutex;  // of `first`
  Status first;
  const auto fail = [&](Status status) {
    const MutexLock lock(mutex);
    if (!failed.exchange(true)) first = std::move(status);
  };
  const TakeNumber take = [&]() -> std::optional<std::size_t> {
    if (failed.load(std::memory_order_relaxed)) return std::nullopt;
    const std::size_t i = next.fetch_add(1, std::memory_order_relaxed);
    if (i >= count) return std::nullopt;
    if (!cancelled.load(std::memory_order_relaxed)) return i;
    fail(Fail(Errc::kInvalidArgument, "it was cancelled"));
    return std::nullopt;
  };
  const auto run = [&] {
    if (Status status = work(take); !status) fail(std::move(status));
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

Status ForEachInParallel(std::size_t count, const std::atomic<bool>& cancelled,
                         const std::function<Status(std::size_t)>& work) {
  return InParallel(count, cancelled, [&work](const TakeNumber& take) -> Status {
    while (const auto i = take()) HF_TRY_STATUS(work(*i));
    return {};
  });
}

}  // namespace holdfast::migration
