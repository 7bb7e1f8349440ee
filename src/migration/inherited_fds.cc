// SPDX-License-Identifier: Apache-2.0
#include "migration/inherited_fds.h"

#include <fmt/format.h>

#include <utility>

namespace holdfast::migration {

Status InheritedFds::Add(std::string name, UniqueFd fd) {
  if (name.empty() || fds_.contains(name)) {
    return Fail(Errc::kMalformed, fmt::format("two descriptors are called '{}'", name));
  }
  fds_.emplace(std::move(name), std::move(fd));
  return {};
}

UniqueFd InheritedFds::Take(std::string_view name) {
  const auto found = fds_.find(name);
  if (found == fds_.end()) return {};
  UniqueFd fd = std::move(found->second);
  fds_.erase(found);
  return fd;
}

std::vector<std::string> InheritedFds::names() const {
  std::vector<std::string> all;
  for (const auto& [name, fd] : fds_) all.push_back(name);
  return all;
}

}  // namespace holdfast::migration
