// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <functional>

#include "object/memory_backend.h"

namespace holdfast::apps {

/// Watches memory being preallocated at start-up: shows on a terminal how far it is once it takes
/// longer than a second, and gives up when somebody wants the program to end.
class PreallocProgress {
 public:
  /// @param interrupted  asked about ten times a second; true gives up
  /// @param fd           where to show it, if it is a terminal
  /// @param started      when the allocation began; nothing is shown in its first second
  PreallocProgress(
      std::function<bool()> interrupted, int fd,
      std::chrono::steady_clock::time_point started = std::chrono::steady_clock::now());
  PreallocProgress(const PreallocProgress&) = delete;
  PreallocProgress& operator=(const PreallocProgress&) = delete;
  /// Wipes the line again.
  ~PreallocProgress();

  /// For AllocateOptions::progress.
  bool Report(const object::AllocateProgress& progress);

 private:
  void Write(std::string_view text) const;

  std::function<bool()> interrupted_;
  int fd_;
  bool terminal_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point started_;
};

}  // namespace holdfast::apps
