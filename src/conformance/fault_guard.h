// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <csignal>
#include <cstddef>
#include <cstdint>

#include "model/kernel.h"

namespace holdfast::conformance {

/// While it lives, accesses of memory that may fail with a signal can be tried. Puts the handlers
/// of SIGBUS and SIGSEGV back when it goes; signals that come from elsewhere end the program as
/// ever.
///
/// Thread-safety: one at a time; accesses on any thread.
class FaultGuard {
 public:
  FaultGuard();
  ~FaultGuard();
  FaultGuard(const FaultGuard&) = delete;
  FaultGuard& operator=(const FaultGuard&) = delete;

  /// Reads a page's first word; Fault::kTorn if its last word is another.
  static model::HostAccess Read(const std::byte* page) noexcept;
  /// Writes a page's first and last word.
  static model::HostAccess Write(std::byte* page, model::Value value) noexcept;

 private:
  struct sigaction bus_before_;
  struct sigaction segv_before_;
};

}  // namespace holdfast::conformance
