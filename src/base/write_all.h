// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include <holdfast/error.h>

namespace holdfast {

/// Writes all of `data` to a descriptor that waits until there is room.
/// @param what  for the error: "writing WHAT failed"
Status WriteAll(int fd, std::span<const std::byte> data, std::string_view what);

}  // namespace holdfast
