// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>
#include <holdfast/units.h>
#include <sys/mman.h>

#include <ostream>

#include "model/model.h"

namespace holdfast::model {

inline constexpr std::uint64_t kBothFlags =
    kvm::abi::kGuestMemfdFlagMmap | kvm::abi::kGuestMemfdFlagInitShared;
inline constexpr std::uint64_t kGuestBase = 4 * kGiB;

inline std::ostream& operator<<(std::ostream& out, const HostAccess& access) {
  return out << "fault " << static_cast<int>(access.fault) << " value " << access.value;
}
inline std::ostream& operator<<(std::ostream& out, const GuestAccess& access) {
  return out << "end " << static_cast<int>(access.end) << " error " << access.error << " flags "
             << access.flags << " gpa " << access.gpa << " value " << access.value;
}

inline HostAccess Holds(Value value) {
  return {Fault::kNone, value};
}
inline GuestAccess GuestHolds(Value value) {
  return {GuestAccess::End::kDone, 0, 0, 0, value};
}
inline constexpr HostAccess kBusError{Fault::kBus, 0};
inline constexpr HostAccess kWritten{Fault::kNone, 0};

/// A VM with one guest_memfd, mapped and bound at kGuestBase.
struct World {
  World(const Rules& rules, unsigned type, std::uint64_t pages, std::uint64_t flags)
      : kernel(rules), vm(kernel.CreateVm(type)) {
    file = kernel.CreateGuestMemfd(vm, pages * kPageSize, flags);
    if ((flags & kvm::abi::kGuestMemfdFlagMmap) != 0) {
      host = kernel.Map(file, 0, pages * kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED);
    } else {
      host = kernel.MapAnonymous(pages * kPageSize);
    }
    Region region;
    region.slot = 1;
    region.flags = kvm::abi::kMemGuestMemfd;
    region.gpa = kGuestBase;
    region.size = pages * kPageSize;
    region.user = host;
    region.file = file;
    EXPECT_EQ(kernel.SetRegion(vm, region), 0);
  }
  int Convert(std::uint64_t page, std::uint64_t pages, bool to_private) {
    request = {};
    request.offset = page * kPageSize;
    request.size = pages * kPageSize;
    request.attributes = to_private ? kvm::abi::kMemoryAttributePrivate : 0;
    request.error_offset = kUntouched;
    return kernel.SetAttributes(file, request);
  }
  HostAccess Read(std::uint64_t page) { return kernel.Read(host, page * kPageSize); }
  HostAccess Write(std::uint64_t page, Value v) { return kernel.Write(host, page * kPageSize, v); }
  GuestAccess GuestRead(std::uint64_t page) {
    return kernel.GuestRead(vm, kGuestBase + page * kPageSize);
  }
  GuestAccess GuestWrite(std::uint64_t page, Value v) {
    return kernel.GuestWrite(vm, kGuestBase + page * kPageSize, v);
  }

  static constexpr std::uint64_t kUntouched = 0x5555;
  Model kernel;
  Handle vm;
  Handle file = kNoHandle;
  Handle host = kNoHandle;
  kvm::abi::MemoryAttributes2 request{};
};

}  // namespace holdfast::model
