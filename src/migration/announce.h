// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <chrono>
#include <cstdint>

#include "devices/net/network.h"
#include "migration/parameters.h"

namespace holdfast::migration {

/// How network cards announce themselves where a guest has arrived: the parameters `announce-…`,
/// which are in range.
inline devices::net::AnnounceTimes AnnounceTimesOf(const Parameters& parameters) {
  const auto ms = [](std::uint64_t value) { return std::chrono::milliseconds(value); };
  devices::net::AnnounceTimes times;
  times.initial = ms(parameters.announce_initial);
  times.longest = ms(parameters.announce_max);
  times.rounds = static_cast<std::int64_t>(parameters.announce_rounds);
  times.step = ms(parameters.announce_step);
  return times;
}

}  // namespace holdfast::migration
