// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include <holdfast/error.h>
#include <holdfast/guest_address.h>
#include <holdfast/unique_fd.h>

#include "machine/boot/e820.h"

namespace holdfast::machine::boot {

/// An opened kernel or initrd. It stays open so that a guest reset reads it again straight into
/// guest RAM; no copy is kept in this process.
struct BootFile {
  UniqueFd fd;
  std::string name;        // for messages: "kernel '/boot/vmlinuz'"
  std::uint64_t size = 0;  // bytes, when it was opened
};

/// Everything a guest is loaded from.
struct BootSource {
  BootFile kernel;
  std::optional<BootFile> initrd;
  std::string cmdline;
  MemoryMap memory_map;  // set by the machine: what the guest is told, and where loaders may load
  GuestAddress rsdp;     // set by the machine: ACPI's root pointer
};

/// Opens one file to boot from. `role` is "kernel" or "initrd".
/// @return kNotFound, kPermission, or kInvalidArgument for what is not a regular file or is empty;
///         each message names role and path.
Result<BootFile> OpenBootFile(const char* role, const std::string& path);

/// Opens kernel and initrd (empty path: none). memory_map and rsdp are left for the caller.
/// @return kInvalidArgument for a command line with a zero byte in it; otherwise as OpenBootFile.
Result<BootSource> OpenBootSource(const std::string& kernel_path, const std::string& initrd_path,
                                  std::string cmdline);

/// Reads from `offset` until `to` is full or the file ends; returns the bytes read.
Result<std::size_t> ReadSome(const BootFile& file, std::uint64_t offset, std::span<std::byte> to);

}  // namespace holdfast::machine::boot
