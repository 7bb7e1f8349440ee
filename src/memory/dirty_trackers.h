// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>

#include <holdfast/dirty_tracker.h>

namespace holdfast {

/// Each method's DirtyTracker::Start().
Result<std::unique_ptr<DirtyTracker>> StartLogTracker(AddressSpace& memory, const kvm::Vm& vm,
                                                      const DirtyTracker::Options& options);
Result<std::unique_ptr<DirtyTracker>> StartRingTracker(AddressSpace& memory, const kvm::Vm& vm,
                                                       const DirtyTracker::Options& options);
Result<std::unique_ptr<DirtyTracker>> StartHashTracker(AddressSpace& memory,
                                                       const DirtyTracker::Options& options);

/// Whether KVM can tell of all writes to guest memory, and tells nobody else yet.
/// @return kInvalidArgument with the remedy
Status CheckLoggable(AddressSpace& memory);

}  // namespace holdfast
