// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <holdfast/error.h>

namespace holdfast {

/// All bytes of a file that a user has named.
/// @param most  how many there may be
/// @return the failed system call, naming the file; kInvalidArgument if it is a folder or longer
///         than `most`
/// Thread-safety: any thread.
Result<std::vector<std::byte>> ReadWholeFile(const std::string& path, std::uint64_t most);

}  // namespace holdfast
