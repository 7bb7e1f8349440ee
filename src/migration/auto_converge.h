// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "migration/parameters.h"

namespace holdfast::migration {

/// Judges by the passes of a migration how much the guest has to be slowed down for them to come to
/// an end (`auto-converge`), by QEMU's rule: every second pass in which the guest has written more
/// than `throttle-trigger-threshold` percent of what was sent slows it down further.
///
/// Thread-safety: one thread.
class AutoConverge {
 public:
  explicit AutoConverge(const Parameters& parameters);

  /// A pass is over in which so many pages were sent and so many written.
  /// @return for how many percent of the time vCPUs shall rest from now on, if that changes
  std::optional<unsigned> PassEnded(std::uint64_t sent, std::uint64_t written);

 private:
  unsigned Next(double allowed, double written) const;

  const unsigned threshold_;  // these in percent
  const unsigned initial_;
  const unsigned increment_;
  const unsigned most_;
  const bool tailslow_;
  unsigned percent_ = 0;
  unsigned bad_passes_ = 0;  // since the last change
};

}  // namespace holdfast::migration
