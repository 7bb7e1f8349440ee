// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <span>

#include <holdfast/address_space.h>
#include <holdfast/error.h>
#include <holdfast/guest_address.h>

#include "machine/boot/boot_source.h"
#include "machine/boot/long_mode.h"

namespace holdfast::machine::boot {

/// A guest that lies in RAM, and how its first vCPU enters it.
struct LoadedGuest {
  enum class Protocol {
    kLinux64,  ///< 64-bit mode, paging on, RSI = boot_info, interrupts off
    kPvh,      ///< 32-bit protected mode, paging off, flat segments, EBX = boot_info
  };
  Protocol protocol;
  GuestAddress entry;                       ///< RIP or EIP
  GuestAddress boot_info;                   ///< zero page (kLinux64) or hvm_start_info (kPvh)
  std::optional<LongModeTables> long_mode;  ///< set for kLinux64
};

/// What -kernel takes, as the hint of every error that says "not this".
inline constexpr char kAcceptedFormats[] =
    "Holdfast boots Linux bzImage files (64-bit, boot protocol 2.12 or newer) and 64-bit x86 ELF "
    "files with a PVH entry (CONFIG_PVH).";

/// Bytes at the start of a kernel file that the loaders look at; what follows is read in place.
inline constexpr std::size_t kKernelHeadSize = 4096;

/// Loads kernel, initrd and command line of `source` into `ram`, along with the tables and the
/// boot information that the kernel's protocol asks for. May be called again (guest reset): the
/// files are read anew. `source.memory_map` must describe `ram`.
/// @return kMalformed for a file that is no kernel, a broken or a truncated one; kUnsupported for a
///         kernel of a kind that cannot be booted; kInvalidArgument where RAM is too small or the
///         command line too long; else the failed read's error. Each names the file. On failure
///         the contents of RAM are undefined.
Result<LoadedGuest> LoadGuest(const AddressSpace& ram, const BootSource& source);

}  // namespace holdfast::machine::boot
