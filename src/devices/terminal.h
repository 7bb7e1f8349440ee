// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include <holdfast/error.h>

namespace holdfast::devices {

/// The user's terminal in raw mode, for as long as the object lives.
///
/// The terminal gets its settings back when the object or the process ends, whatever the reason:
/// also from exit() and from the signals of a crash (SIGSEGV, SIGBUS, SIGABRT, SIGILL, SIGFPE,
/// SIGQUIT), after which the signal takes its former course. Ctrl-Z gives it back while the process
/// is stopped and SIGCONT makes it raw again. SIGKILL is the exception. While the process is in the
/// background the terminal is not touched.
///
/// Thread-safety: one object at a time in a process, made and destroyed on one thread.
class Terminal {
 public:
  /// Puts `fd` into raw mode: no echo, no line editing, 8 bits, output processed as before.
  /// @param signals  keep Ctrl-C, Ctrl-Z and Ctrl-\ as signals; otherwise they are input
  /// @return null if `fd` is no terminal; kInvalidArgument if there is a Terminal already.
  static Result<std::unique_ptr<Terminal>> MakeRaw(int fd, bool signals);
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal();

  /// What the destructor does to the settings; async-signal-safe. For a program that leaves by
  /// _exit() or a signal handler of its own.
  static void RestoreNow() noexcept;

 private:
  Terminal() = default;
};

}  // namespace holdfast::devices
