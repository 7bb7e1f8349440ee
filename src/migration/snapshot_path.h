// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace holdfast::migration {

/// The ending of the files that savevm makes.
inline constexpr std::string_view kSnapshotSuffix = ".snapshot";

/// The file that `savevm NAME`, `loadvm NAME` and `-loadvm NAME` mean: a name without a slash is
/// NAME.snapshot in the working directory, any other is a path.
inline std::string SnapshotPath(std::string_view name) {
  std::string path(name);
  if (name.find('/') == std::string_view::npos) path += kSnapshotSuffix;
  return path;
}

}  // namespace holdfast::migration
