// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/state.h"
#include "machine/numa.h"

namespace holdfast::machine {

/// How a machine is divided into nodes, as fields of the section version `since`. It is not loaded
/// but compared: where a guest's memory lies follows from the order of its nodes' backends, and
/// which node a processor belongs to the guest has learned when it started.
/// Thread-safety: that of `fields`.
void VisitNuma(state::Fields& fields, const NumaConfig& numa, state::Since since);

}  // namespace holdfast::machine
