// SPDX-License-Identifier: Apache-2.0
#include "monitors.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

namespace holdfast::bench {

Folder::Folder(const std::filesystem::path& where) {
  std::string name = (std::filesystem::absolute(where) / "bench-XXXXXX").string();
  if (::mkdtemp(name.data()) != nullptr) path_ = name;
}

Folder::~Folder() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

Result<std::string> Qmp(const std::string& socket, std::string_view command) {
  const std::string line = fmt::format("holdfastctl qmp {} {}", socket, command);
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(::popen(line.c_str(), "re"), ::pclose);
  if (pipe == nullptr) return FailErrno(line);
  std::string text(std::size_t{1} << 16, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), pipe.get()));
  return text;
}

}  // namespace holdfast::bench
