// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>
#include <holdfast/unique_fd.h>
#include <sys/types.h>

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::bench {

/// A monitor under measurement: started, watched, and always ended.
class Process {
 public:
  /// What is watched from outside besides the output.
  enum class Watch {
    kOutput,
    kFirstRun,  ///< the first KVM_RUN stops the process until it is ended
  };

  /// Starts `command` (found through PATH) with its output in a pipe and /dev/null as input.
  static Result<Process> Start(const std::vector<std::string>& command, Watch watch);
  Process(Process&& other) noexcept;
  Process& operator=(Process&&) = delete;
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process();

  pid_t pid() const noexcept { return pid_; }
  /// What it has said up to what was waited for.
  std::string_view text() const noexcept { return text_; }
  std::chrono::steady_clock::time_point started() const noexcept { return started_; }

  /// Waits until the output contains `text`; fails at its end or after `limit`, and with
  /// kUnsupported as soon as QEMU says that KVM has failed, after which its guest stands still.
  Status WaitForText(std::string_view text, std::chrono::seconds limit);
  /// Waits for the first KVM_RUN (Watch::kFirstRun) and returns the process' CPU time until then,
  /// user and system.
  Result<std::chrono::nanoseconds> CpuTimeAtFirstRun(std::chrono::seconds limit) const;

 private:
  Process() = default;
  pid_t pid_ = -1;
  UniqueFd output_;
  UniqueFd listener_;  // seccomp notifications
  std::string text_;
  std::chrono::steady_clock::time_point started_;
};

/// Resident bytes of a process that are not guest RAM, and the bytes that are: mappings of at
/// least half of `ram_bytes` count as guest RAM.
struct Memory {
  std::uint64_t guest = 0;
  std::uint64_t other = 0;
};
Result<Memory> ResidentMemory(pid_t pid, std::uint64_t ram_bytes);

}  // namespace holdfast::bench
