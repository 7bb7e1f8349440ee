// SPDX-License-Identifier: Apache-2.0
#include "memory/dirty_trackers.h"

namespace holdfast {

std::string_view ToString(DirtyMethod method) noexcept {
  switch (method) {
    case DirtyMethod::kAuto:
      return "auto";
    case DirtyMethod::kBitmap:
      return "bitmap";
    case DirtyMethod::kHash:
      break;
  }
  return "hash";
}

Result<std::unique_ptr<DirtyTracker>> DirtyTracker::Start(AddressSpace& memory, const kvm::Vm& vm,
                                                          const Options& options) {
  if (options.method == DirtyMethod::kHash) return StartHashTracker(memory, options);
  auto logged = StartLogTracker(memory, vm, options);
  // Only what cannot be is done the other way; a failed ioctl is a failure.
  if (logged || options.method == DirtyMethod::kBitmap ||
      logged.error().code() != Errc::kInvalidArgument) {
    return logged;
  }
  auto hashed = StartHashTracker(memory, options);
  // Where neither can be, the first reason says more.
  return hashed ? std::move(hashed) : std::move(logged);
}

}  // namespace holdfast
