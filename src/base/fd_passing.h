// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <span>
#include <vector>

#include <holdfast/unique_fd.h>

namespace holdfast {

/// How many descriptors the kernel takes with one message (SCM_MAX_FD; unix(7)).
inline constexpr std::size_t kMostPassedFds = 253;

/// As send() on a Unix socket, with descriptors beside the first byte; a receiver gets copies.
/// @param fds  at most kMostPassedFds; EINVAL otherwise
ssize_t SendWithFds(int socket, std::span<const std::byte> data, std::span<const int> fds,
                    int flags);

/// What ReceiveWithFds() got.
struct WithFds {
  ssize_t size = -1;          ///< as recv(); errno tells more where it is negative
  std::vector<UniqueFd> fds;  ///< close-on-exec
  bool more_fds = false;      ///< came than were asked for; the kernel closed them
};

/// As recv() on a Unix socket, with up to `most_fds` descriptors that came along.
/// @param most_fds  1 to kMostPassedFds
WithFds ReceiveWithFds(int socket, std::span<std::byte> into, std::size_t most_fds, int flags);

}  // namespace holdfast
