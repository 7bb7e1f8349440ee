// SPDX-License-Identifier: Apache-2.0
#include "migration/auto_converge.h"

#include <algorithm>

namespace holdfast::migration {

AutoConverge::AutoConverge(const Parameters& parameters)
    : threshold_(parameters.throttle_trigger_threshold),
      initial_(parameters.cpu_throttle_initial),
      increment_(parameters.cpu_throttle_increment),
      most_(parameters.max_cpu_throttle),
      tailslow_(parameters.cpu_throttle_tailslow) {}

std::optional<unsigned> AutoConverge::PassEnded(std::uint64_t sent, std::uint64_t written) {
  constexpr unsigned kBadPasses = 2;  // bad passes
  const double allowed = static_cast<double>(sent) * threshold_ / 100;
  if (static_cast<double>(written) <= allowed || ++bad_passes_ < kBadPasses) return std::nullopt;
  bad_passes_ = 0;
  const unsigned next = Next(allowed, static_cast<double>(written));
  if (next == percent_) return std::nullopt;
  percent_ = next;
  return next;
}

unsigned AutoConverge::Next(double allowed, double written) const {
  if (percent_ == 0) return initial_;
  unsigned more = increment_;
  if (tailslow_) {
    // If what is written goes with the time that the guest has, this much less would do.
    const unsigned now = 100 - percent_;
    more = std::min(now - static_cast<unsigned>(now * (allowed / written)), more);
  }
  return std::min(percent_ + more, most_);
}

}  // namespace holdfast::migration
