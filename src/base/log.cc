// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <ctime>

#include <holdfast/unique_fd.h>

#include "base/thread_annotations.h"

namespace holdfast::log {
namespace internal {
constinit std::atomic<std::uint32_t> g_items{0};
}  // namespace internal

namespace {

constexpr std::array kItems = {
    ItemInfo{Item::kGuestErrors, "guest_errors", "log when the guest does something invalid"},
    ItemInfo{Item::kUnimplemented, "unimp", "log when the guest uses what is not implemented"},
};

constinit std::atomic<bool> g_timestamps{false};

// What changes at start-up only, but is read by any thread.
struct State {
  Mutex mutex;
  std::string_view program HF_GUARDED_BY(mutex) = "holdfast";
  std::string guest HF_GUARDED_BY(mutex);
  UniqueFd file HF_GUARDED_BY(mutex);
};

State& GetState() {
  // Never destroyed: threads may still speak while the process ends.
  static auto* state = new State;
  return *state;
}

// A log that cannot be written has nobody left to complain to, so a failure ends the attempt.
void WriteAll(int fd, std::string_view text) noexcept {
  while (!text.empty()) {
    const ssize_t written = ::write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

void Say(std::string_view severity, std::string_view text) {
  std::string line;
  if (timestamps()) line = TimestampNow() + " ";
  State& state = GetState();
  const MutexLock lock(state.mutex);
  if (!state.guest.empty()) line += state.guest + " ";
  line += fmt::format("{}: {}{}\n", state.program, severity, text);
  WriteAll(STDERR_FILENO, line);
}

}  // namespace

namespace internal {

void WriteLine(std::string_view text) {
  std::string line;
  if (timestamps()) line = TimestampNow() + " ";
  line += text;
  line += '\n';
  State& state = GetState();
  const MutexLock lock(state.mutex);
  WriteAll(state.file ? state.file.get() : STDERR_FILENO, line);
}

}  // namespace internal

void SetProgramName(std::string_view name) {
  State& state = GetState();
  const MutexLock lock(state.mutex);
  state.program = name;
}

void SetTimestamps(bool on) {
  g_timestamps.store(on, std::memory_order_relaxed);
}

bool timestamps() noexcept {
  return g_timestamps.load(std::memory_order_relaxed);
}

void SetGuestName(std::string name) {
  State& state = GetState();
  const MutexLock lock(state.mutex);
  state.guest = std::move(name);
}

void Info(std::string_view text) {
  Say("info: ", text);
}
void Warn(std::string_view text) {
  Say("warning: ", text);
}
void Error(std::string_view text) {
  Say("", text);
}
void Error(const holdfast::Error& error) {
  Say("", error.ToString());
}

std::span<const ItemInfo> Items() noexcept {
  return kItems;
}

void EnableItems(std::uint32_t items) noexcept {
  internal::g_items.fetch_or(items, std::memory_order_relaxed);
}

Status SetFile(const std::string& path) {
  UniqueFd file;
  if (!path.empty()) {
    file.reset(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666));
    if (!file) return FailErrno(fmt::format("Error opening logfile {}", path));
  }
  State& state = GetState();
  const MutexLock lock(state.mutex);
  state.file = std::move(file);
  return {};
}

bool GoesToStderr() noexcept {
  State& state = GetState();
  const MutexLock lock(state.mutex);
  return !state.file;
}

std::string TimestampNow() {
  timeval now{};
  ::gettimeofday(&now, nullptr);
  std::tm utc{};
  ::gmtime_r(&now.tv_sec, &utc);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z", utc.tm_year + 1900,
                     utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, now.tv_usec);
}

}  // namespace holdfast::log
