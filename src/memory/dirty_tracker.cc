// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <holdfast/address_space.h>
#include <holdfast/vm.h>

#include "memory/dirty_trackers.h"
#include "memory/host_writes.h"

namespace holdfast {

std::string_view ToString(DirtyMethod method) noexcept {
  switch (method) {
    case DirtyMethod::kAuto:
      return "auto";
    case DirtyMethod::kBitmap:
      return "bitmap";
    case DirtyMethod::kRing:
      return "ring";
    case DirtyMethod::kHash:
      break;
  }
  return "hash";
}

Status CheckLoggable(AddressSpace& memory) {
  if (memory.host_writes().enabled()) {
    return Fail(Errc::kInvalidArgument, "KVM logs writes to guest memory for somebody else already",
                "Wait until that has ended, or compare contents (hash).");
  }
  if (const auto externals = memory.host_writes().Externals(); !externals.empty()) {
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("{} writes guest memory without a log of it", fmt::join(externals, " and ")),
        "Compare contents (hash) instead of KVM's log, or do without it.");
  }
  return {};
}

Result<std::unique_ptr<DirtyTracker>> DirtyTracker::Start(AddressSpace& memory, const kvm::Vm& vm,
                                                          const Options& options) {
  if (options.method == DirtyMethod::kHash) return StartHashTracker(memory, options);
  const bool rings = options.method == DirtyMethod::kRing ||
                     (options.method == DirtyMethod::kAuto && vm.dirty_rings() != nullptr);
  auto logged =
      rings ? StartRingTracker(memory, vm, options) : StartLogTracker(memory, vm, options);
  // Only what cannot be is done the other way; a failed ioctl is a failure.
  if (logged || options.method != DirtyMethod::kAuto ||
      logged.error().code() != Errc::kInvalidArgument) {
    return logged;
  }
  auto hashed = StartHashTracker(memory, options);
  // Where neither can be, the first reason says more.
  return hashed ? std::move(hashed) : std::move(logged);
}

}  // namespace holdfast
