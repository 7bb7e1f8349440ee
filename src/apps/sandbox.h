// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/filter.h>

#include <span>
#include <string_view>
#include <vector>

#include <holdfast/error.h>

#include "base/thread_role.h"

namespace holdfast::apps {

/// `-sandbox`: on or off, and which groups of system calls are allowed beyond what the monitor
/// itself needs.
struct SandboxOptions {
  bool enabled = false;
  bool obsolete = false;            ///< calls that only old C libraries make
  bool elevate_privileges = false;  ///< set*uid and the like; and capabilities are kept
  bool spawn = false;               ///< new processes
  bool resource_control = false;    ///< limits, priorities, affinity
};

/// Confines the whole process, from now on and for good: no new privileges, no capabilities, and a
/// list of allowed system calls for each kind of thread. All threads there are get the main
/// thread's list at once, new ones inherit it; those that call ConfineThread() get a shorter one
/// besides. A call that is not on the list ends the process with status 1 and a sentence on
/// standard error that names call and thread.
///
/// Call it once everything is open, on the main thread. @return kUnsupported where the kernel has
/// no seccomp filters, else the failed system call
Status EnterSandbox(const SandboxOptions& options);

/// The filter program for a kind of thread.
Result<std::vector<sock_filter>> MakeSandboxFilter(ThreadRole role, const SandboxOptions& options);

/// A filter that allows `calls` (names) and ends the process with SIGSYS' handler otherwise.
Result<std::vector<sock_filter>> MakePlainFilter(std::span<const std::string_view> calls);

/// Puts a filter on the calling thread, or on all threads of the process.
Status InstallFilter(std::span<const sock_filter> filter, bool all_threads);

}  // namespace holdfast::apps
