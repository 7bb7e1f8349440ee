// SPDX-License-Identifier: Apache-2.0
#include "apps/qmp_history.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <holdfast/unique_fd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string_view>

#include "base/write_all.h"

namespace holdfast::apps {
namespace {

// Many times what we write: 1000 lines of usual length.
constexpr std::size_t kLargestFile = 4U << 20;

std::string_view Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? std::string_view() : value;
}

std::string ReadAll(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  std::string text;
  char buffer[16384];
  while (fd && text.size() < kLargestFile) {
    const ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
    if (got <= 0) break;
    text.append(buffer, static_cast<std::size_t>(got));
  }
  return text;
}

void MakeFolders(const std::string& path) {
  for (std::size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1))
    ::mkdir(path.substr(0, slash).c_str(), S_IRWXU);  // one that cannot be made shows at open()
}

Status WriteFile(const std::string& path, std::string_view text) {
  const UniqueFd fd(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, S_IRUSR | S_IWUSR));
  if (!fd) return FailErrno(fmt::format("cannot write '{}'", path));
  return WriteAll(fd.get(), std::as_bytes(std::span(text)), fmt::format("'{}'", path));
}

}  // namespace

std::string QmpHistoryPath() {
  const std::string_view state = Environment("XDG_STATE_HOME");
  // The specification of these folders: a relative path is to be ignored.
  if (state.starts_with('/')) return fmt::format("{}/holdfast/qmp_history", state);
  const std::string_view home = Environment("HOME");
  return home.empty() ? std::string() : fmt::format("{}/.local/state/holdfast/qmp_history", home);
}

std::vector<std::string> ReadQmpHistory(const std::string& path) {
  const std::string text = ReadAll(path);
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\n', at);
    if (end == std::string::npos) break;  // a line half written
    if (end > at) lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  if (lines.size() > kLongestQmpHistory) {
    lines.erase(lines.begin(), lines.end() - static_cast<std::ptrdiff_t>(kLongestQmpHistory));
  }
  return lines;
}

Status AddToQmpHistory(const std::string& path, std::span<const std::string> lines) {
  std::vector<std::string> all = ReadQmpHistory(path);
  bool added = false;
  for (const std::string& line : lines) {
    if (line.empty() || line.starts_with(' ') || line.find('\n') != std::string::npos) continue;
    if (!all.empty() && all.back() == line) continue;
    all.push_back(line);
    added = true;
  }
  if (!added) return {};
  std::string text;
  const std::size_t first = all.size() > kLongestQmpHistory ? all.size() - kLongestQmpHistory : 0;
  for (std::size_t i = first; i < all.size(); ++i) text += all[i] + "\n";
  MakeFolders(path);
  // Whoever reads it meanwhile finds the old file or the new one, whole.
  const std::string draft = fmt::format("{}.{}", path, ::getpid());
  HF_TRY_STATUS(WriteFile(draft, text));
  if (std::rename(draft.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(draft.c_str());
    return Fail(Error::FromErrno(fmt::format("cannot write '{}'", path), error));
  }
  return {};
}

}  // namespace holdfast::apps
