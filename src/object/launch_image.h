// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <holdfast/address_space.h>
#include <holdfast/error.h>
#include <holdfast/guest_converter.h>
#include <holdfast/vm.h>

#include "object/memory_backend.h"

namespace holdfast::object {

/// How the pages of a VM with encrypted memory become private: in place where its kernel can and
/// `in_place` does not say off, else in two layers.
/// @param id  the guest object's, for messages
/// @return kUnsupported where the kernel cannot what is asked
Result<ConversionEngineKind> ChooseEncryptedEngine(kvm::Vm& vm, std::string_view id,
                                                   OnOffAuto in_place);

/// Pages that follow each other in guest RAM and are alike: all with contents, or all zero.
struct LaunchRun {
  GuestAddress base;
  std::uint64_t size = 0;  ///< bytes, a page multiple
  bool zero = false;

  bool operator==(const LaunchRun&) const = default;
};

/// Guest RAM as it was loaded, in runs, in the order of their addresses. What counts is what a page
/// holds and not whether there is memory behind it, so that the same image always gives the same
/// measurement. Pages that do not exist are not made. @return the failed look at the memory
Result<std::vector<LaunchRun>> FindLaunchRuns(const AddressSpace& memory);

/// Makes a range private. @return kInvalidArgument naming the page that a device works on
Status MakeLaunchPrivate(GuestConverter& converter, GuestAddress base, std::uint64_t size);

/// Hands contents to a launch from a buffer, because conversion takes them away: copies a piece,
/// makes it private, and calls `take` with where it was and the page-aligned copy. Pieces are
/// 2 MiB at most. @return the first error
using TakePiece = std::function<Status(GuestAddress base, std::span<std::byte> copy)>;
Status LaunchFromBuffer(const AddressSpace& memory, GuestConverter& converter, GuestAddress base,
                        std::uint64_t size, const TakePiece& take);

}  // namespace holdfast::object
