// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>

namespace holdfast::test {

/// Runs `body` on a thread of its own which sees, as every program does that it starts, a disk that
/// is broken from one offset of each file to another: pread() that begins there fails with EIO.
/// There is no io_uring for them, which would read all the same. A seccomp filter does it.
/// @param begin  @param end  below 4 GiB
/// @return false where the kernel has no seccomp filters; `body` has not run then
bool RunOnBrokenDisk(std::uint32_t begin, std::uint32_t end, const std::function<void()>& body);

}  // namespace holdfast::test
