// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <optional>

#include <holdfast/error.h>

namespace holdfast::migration {

/// The next number to work on, or none: there are no more, another thread has failed, or it was
/// cancelled.
using TakeNumber = std::function<std::optional<std::size_t>()>;

/// Calls `work` once on each of as many threads as there are processors (eight at most, and no more
/// than numbers). Between them they take each number below `count`, roughly in order. Ends early
/// when a call fails, or when `cancelled` becomes true.
/// @return the first error; kInvalidArgument "it was cancelled"
Status InParallel(std::size_t count, const std::atomic<bool>& cancelled,
                  const std::function<Status(const TakeNumber&)>& work);

/// The same for work that is done number by number: calls `work(i)` for each i below `count`.
Status ForEachInParallel(std::size_t count, const std::atomic<bool>& cancelled,
                         const std::function<Status(std::size_t)>& work);

}  // namespace holdfast::migration
