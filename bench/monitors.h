// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>

#include <filesystem>
#include <string>
#include <string_view>

namespace holdfast::bench {

/// A folder of its own, that goes with the object.
class Folder {
 public:
  /// @param where  the folder that it is made in
  explicit Folder(const std::filesystem::path& where = std::filesystem::temp_directory_path());
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  ~Folder();
  std::string operator/(std::string_view name) const { return (path_ / name).string(); }

 private:
  std::filesystem::path path_;
};

/// What `holdfastctl qmp` prints for a command and its arguments, quoted for a shell.
Result<std::string> Qmp(const std::string& socket, std::string_view command);

}  // namespace holdfast::bench
