// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

#include <holdfast/error.h>

#include "base/trace_events.h"

/// Trace points. `HF_TRACE(kvm_run_exit, index, reason)` costs one load and one predictable branch
/// while the event is off; its arguments are then not evaluated. The format belongs to the event
/// (trace_events.h) and is checked against the arguments at compile time.
///
/// Thread-safety: all functions from any thread.
namespace holdfast::trace {

/// One event of the registry.
class Event {
 public:
  constexpr Event(std::string_view name, std::string_view format) noexcept
      : name_(name), format_(format) {}
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() = default;

  std::string_view name() const noexcept { return name_; }
  std::string_view format() const noexcept { return format_; }
  bool enabled() const noexcept { return enabled_.load(std::memory_order_relaxed); }
  void set_enabled(bool on) noexcept { enabled_.store(on, std::memory_order_relaxed); }

 private:
  std::string_view name_;
  std::string_view format_;
  std::atomic<bool> enabled_{false};
};

namespace events {
#define HF_TRACE_DECLARE(name, format)            \
  inline constexpr char name##_format[] = format; \
  inline constinit Event name{#name, name##_format};
HF_TRACE_EVENTS(HF_TRACE_DECLARE)
#undef HF_TRACE_DECLARE
}  // namespace events

/// Every event, in alphabetical order.
std::span<Event* const> Events() noexcept;

/// Every event whose name matches `pattern` (`*` and `?` as in a shell), in alphabetical order.
std::vector<Event*> Find(std::string_view pattern);
/// Whether `pattern` has a `*` or `?`: then nothing need match it, while a bare name must exist.
bool IsPattern(std::string_view pattern) noexcept;
/// Turns every event whose name matches `pattern` (`*` and `?` as in a shell; a leading `-` turns
/// off instead) on. @return how many matched.
int Enable(std::string_view pattern);
/// Enable() for each line of a file; empty lines and lines starting with # are skipped.
/// @return the open's or read's error, naming the file.
Status EnableFromFile(const std::string& path);
/// Whether `name` matches the shell-like `pattern`.
bool Matches(std::string_view pattern, std::string_view name) noexcept;

/// Writes a line: "name text", to the log (log.h).
void Emit(const Event& event, std::string_view text);

}  // namespace holdfast::trace

/// Reports the event `name` with its arguments, if it is on.
#define HF_TRACE(name, ...)                                                                    \
  do {                                                                                         \
    if (::holdfast::trace::events::name.enabled()) [[unlikely]] {                              \
      ::holdfast::trace::Emit(                                                                 \
          ::holdfast::trace::events::name,                                                     \
          ::fmt::format(::holdfast::trace::events::name##_format __VA_OPT__(, ) __VA_ARGS__)); \
    }                                                                                          \
  } while (false)
