// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>
#include <holdfast/units.h>

#include <concepts>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "model/kernel.h"

namespace holdfast::conformance {

/// "0", "EINVAL (22)", "SIGBUS", "exit 39, EFAULT, private, at 0x…": what a person reads.
std::string Text(const model::HostAccess& access);
std::string Text(const model::GuestAccess& access);
std::string Text(const model::PreFaulted& answer);
/// A number that a system call answered; small negative ones are errors.
std::string Text(std::int64_t answer);

/// Takes the answers of one case and keeps the first that was not expected.
class Check {
 public:
  /// @return whether it was as expected
  template <typename T>
  bool Equal(std::string_view what, const T& got, const T& expected) {
    if (got == expected) return true;
    if (difference_.empty()) {
      difference_ = fmt::format("{}: {}, expected {}", what, Print(got), Print(expected));
    }
    return false;
  }
  /// A system call's answer.
  template <std::integral A, std::integral B>
  bool Answer(std::string_view what, A got, B expected) {
    return Equal<std::int64_t>(what, static_cast<std::int64_t>(got),
                               static_cast<std::int64_t>(expected));
  }
  bool True(std::string_view what, bool good) { return Answer(what, good ? 1 : 0, 1); }
  /// The case cannot be tried here, for want of what `why` says.
  void NotOffered(std::string_view why) { not_offered_ = why; }

  const std::string& difference() const noexcept { return difference_; }
  const std::string& not_offered() const noexcept { return not_offered_; }

 private:
  template <typename T>
  static std::string Print(const T& value) {
    return Text(value);
  }
  std::string difference_;
  std::string not_offered_;
};

/// What a kernel has to have for a case.
enum class Needs : std::uint8_t {
  kGuestMemfd,  ///< nothing more: any kernel from 6.18 on
  kPreFault,
  kTwoLayers,  ///< software-protected VMs with VM attributes
  kInPlace,    ///< software-protected VMs with in-place conversion
};

struct Case {
  std::string_view name;
  Needs needs;
  void (*run)(model::Kernel& kernel, Check& check);
  std::string_view remark;  ///< what differs between kernels, and why; may be empty
};

/// The cases, by subject; each in its cases_*.cc.
std::span<const Case> FileCases();
std::span<const Case> HostCases();
std::span<const Case> SlotCases();
std::span<const Case> GuestCases();
std::span<const Case> TwoLayerCases();
std::span<const Case> InPlaceCases();

// ---- What cases are made of
// -------------------------------------------------------------------------

inline constexpr std::uint64_t kMmapFlag = kvm::abi::kGuestMemfdFlagMmap;
inline constexpr std::uint64_t kSharedFlags = kMmapFlag | kvm::abi::kGuestMemfdFlagInitShared;
inline constexpr std::uint64_t kPrivateAttribute = kvm::abi::kMemoryAttributePrivate;
inline constexpr std::uint64_t kGuestBase = 4 * kGiB;

inline model::HostAccess Holds(model::Value value) {
  return {model::Fault::kNone, value};
}
inline model::GuestAccess GuestHolds(model::Value value) {
  return {model::GuestAccess::End::kDone, 0, 0, 0, value};
}
inline constexpr model::HostAccess kWritten{model::Fault::kNone, 0};
inline constexpr model::HostAccess kBusError{model::Fault::kBus, 0};
inline constexpr model::GuestAccess kMmioExit{model::GuestAccess::End::kMmio, 0, 0, 0, 0};

/// A VM with a guest_memfd in slot 1 at kGuestBase, and the host's view of it: a mapping, or memory
/// of its own where the file cannot be mapped.
class Scene {
 public:
  struct Options {
    unsigned type = kvm::abi::kVmTypeDefault;
    std::uint64_t pages = 4;
    std::uint64_t flags = kSharedFlags;
    bool bound = true;
  };
  Scene(model::Kernel& used_kernel, Check& used_check, const Options& options);

  model::HostAccess Read(std::uint64_t page) { return kernel.Read(host, page * kPageSize); }
  model::HostAccess Write(std::uint64_t page, model::Value value) {
    return kernel.Write(host, page * kPageSize, value);
  }
  model::GuestAccess GuestRead(std::uint64_t page) {
    return kernel.GuestRead(vm, kGuestBase + page * kPageSize);
  }
  model::GuestAccess GuestWrite(std::uint64_t page, model::Value value) {
    return kernel.GuestWrite(vm, kGuestBase + page * kPageSize, value);
  }
  int Fallocate(int mode, std::uint64_t from_page, std::uint64_t count) {
    return kernel.Fallocate(file, mode, static_cast<std::int64_t>(from_page * kPageSize),
                            static_cast<std::int64_t>(count * kPageSize));
  }
  int DeleteSlot();

  model::Kernel& kernel;
  Check& check;
  model::Handle vm;
  model::Handle file;
  model::Handle host;
};

/// A slot of one page bound to `file`.
model::Region OnePageRegion(std::uint32_t slot, std::uint64_t gpa, model::Handle file,
                            std::uint64_t file_offset);

}  // namespace holdfast::conformance
