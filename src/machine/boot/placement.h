// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <holdfast/address_space.h>
#include <holdfast/error.h>
#include <holdfast/guest_address.h>

#include "machine/boot/boot_source.h"
#include "machine/boot/e820.h"

namespace holdfast::machine::boot {

/// Reads [file_offset, file_offset + size) of `file` straight into RAM.
/// @return as AddressSpace::ReadFile, with the file named.
Status LoadPart(const AddressSpace& ram, const BootFile& file, std::uint64_t file_offset,
                GuestAddress to, std::uint64_t size);

/// Reads `initrd` into the highest page-aligned place it fits in, as QEMU does: far from where a
/// kernel unpacks itself.
/// @param area       the RAM that holds the kernel
/// @param from       first free byte above the kernel
/// @param max_end    one past the last byte an initrd may have
/// @return its address; kInvalidArgument if it does not fit, naming both sizes.
Result<GuestAddress> LoadInitrd(const AddressSpace& ram, const BootFile& initrd,
                                const MemoryMapEntry& area, std::uint64_t from,
                                std::uint64_t max_end);

/// Writes the command line with its final zero to its place in layout.h.
/// @param limit  longest command line the kernel takes, in bytes without the zero
Status WriteCmdline(const AddressSpace& ram, const BootSource& source, std::uint64_t limit);

}  // namespace holdfast::machine::boot
