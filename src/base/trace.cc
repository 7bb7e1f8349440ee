// SPDX-License-Identifier: Apache-2.0
#include "base/trace.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include <holdfast/unique_fd.h>

#include "base/log.h"

namespace holdfast::trace {
namespace {

constinit const std::array kEvents = {
#define HF_TRACE_POINTER(name, format) &events::name,
    HF_TRACE_EVENTS(HF_TRACE_POINTER)
#undef HF_TRACE_POINTER
};

// No list of events is longer than this; a device file would never end.
constexpr std::size_t kMaxEventsFile = 1U << 20;

}  // namespace

std::span<Event* const> Events() noexcept {
  return kEvents;
}

bool Matches(std::string_view pattern, std::string_view name) noexcept {
  // The usual two-pointer walk: on a mismatch let the last `*` take one character more.
  std::size_t p = 0;
  std::size_t n = 0;
  std::size_t star = std::string_view::npos;
  std::size_t resume = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      resume = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      n = ++resume;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::vector<Event*> Find(std::string_view pattern) {
  std::vector<Event*> found;
  for (Event* const event : kEvents)
    if (Matches(pattern, event->name())) found.push_back(event);
  return found;
}

bool IsPattern(std::string_view pattern) noexcept {
  return pattern.find_first_of("*?") != std::string_view::npos;
}

int Enable(std::string_view pattern) {
  const bool on = !pattern.starts_with('-');
  if (!on) pattern.remove_prefix(1);
  const std::vector<Event*> found = Find(pattern);
  for (Event* const event : found) event->set_enabled(on);
  return static_cast<int>(found.size());
}

Status EnableFromFile(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return FailErrno(path);
  std::string text;
  std::array<char, 4096> buffer{};
  while (text.size() < kMaxEventsFile) {
    const ssize_t got = ::read(file.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FailErrno(path);
    if (got == 0) break;
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    while (!line.empty() && (line.back() == ' ' || line.back() == '\r')) line.remove_suffix(1);
    if (line.empty() || line.front() == '#') continue;
    if (Enable(line) == 0 && !IsPattern(line)) {
      log::Warn(fmt::format("trace event '{}' does not exist", line));
    }
  }
  return {};
}

void Emit(const Event& event, std::string_view text) {
  log::internal::WriteLine(fmt::format("{}{}{}", event.name(), text.empty() ? "" : " ", text));
}

}  // namespace holdfast::trace
