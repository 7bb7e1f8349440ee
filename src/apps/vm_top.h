// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "apps/vm_state.h"

namespace holdfast::apps {

/// What a vCPU did between two readings. Empty: the server does not say.
struct CpuActivity {
  std::uint64_t index = 0;
  std::uint64_t host_thread = 0;
  std::optional<double> use = {};  ///< of one host CPU, 1 is all of it
  std::optional<double> exits_per_second = {};
};

/// What `top` shows: the second of two readings, and what happened between them.
struct TopView {
  VmState state = {};
  double seconds = 0;  ///< between the readings
  std::vector<CpuActivity> cpus = {};
  // There is no source of these yet; they show as "-".
  std::optional<double> dirty_bytes_per_second = {};
  std::optional<double> conversions_per_second = {};

  std::optional<double> CpuUse() const;
  std::optional<double> ExitsPerSecond() const;
};

/// A counter that has gone backwards (the VM was started anew) counts as unknown.
TopView CompareReadings(const VmState& before, VmState now);

/// The view in at most `rows` lines of at most `columns` characters, each with a line end. If there
/// are too many vCPUs the busiest are shown.
std::string DrawTop(const TopView& view, std::size_t columns, std::size_t rows);
nlohmann::ordered_json TopJson(const TopView& view);

}  // namespace holdfast::apps
