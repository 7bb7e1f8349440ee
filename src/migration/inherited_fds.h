// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>

namespace holdfast::migration {

/// A descriptor that a new monitor is to have under a name. Whoever made it keeps it open.
struct KeptFd {
  std::string name;  ///< "ram/ID", "netdev/ID/0"
  int fd = -1;
};

/// What a monitor got from the one whose place it takes, by name.
///
/// Thread-safety: one thread.
class InheritedFds {
 public:
  /// @return kMalformed for a name that is there already, or an empty one
  Status Add(std::string name, UniqueFd fd);
  /// An empty descriptor if there is none of this name, or it was taken.
  UniqueFd Take(std::string_view name);
  /// Those that nobody took.
  std::vector<std::string> names() const;

 private:
  std::map<std::string, UniqueFd, std::less<>> fds_;
};

}  // namespace holdfast::migration
