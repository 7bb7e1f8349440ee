// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>

#include <holdfast/error.h>
#include <holdfast/numa_policy.h>

namespace holdfast {

/// The tightest bound on memory that is about to be allocated.
struct FreeMemory {
  std::uint64_t bytes;
  std::string where;  ///< for people: "host node 1", "the host", "the control group /vm"
};

/// How much memory can be allocated by `policy` before the kernel would have to kill somebody: the
/// smallest of what the policy's nodes (bind only: the others may go elsewhere), the host, and the
/// control groups that this process is in have left. It is a look, not a reservation.
/// @param swappable  whether the memory can go to swap space (guest_memfd cannot)
/// @param root       put before /proc and /sys, for tests
FreeMemory FindFreeMemory(const NumaPolicy& policy, bool swappable, const std::string& root = {});

}  // namespace holdfast
