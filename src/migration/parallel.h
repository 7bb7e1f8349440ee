// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>

#include <holdfast/error.h>

namespace holdfast::migration {

/// Calls `work(i)` for each i below `count`, on as many threads as there are processors (eight at
/// most), roughly in order. Ends early when a call fails, or when `cancelled` becomes true.
/// @return the first error; kInvalidArgument "it was cancelled"
Status ForEachInParallel(std::size_t count, const std::atomic<bool>& cancelled,
                         const std::function<Status(std::size_t)>& work);

}  // namespace holdfast::migration
