// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include <holdfast/address_space.h>
#include <holdfast/error.h>

#include "machine/boot/boot_source.h"
#include "machine/boot/guest_image.h"

namespace holdfast::machine::boot {

/// Whether `head`, the start of a file, has ELF's magic.
bool LooksLikeElf(std::span<const std::byte> head) noexcept;

/// The PVH entry point in the notes of one PT_NOTE segment: the descriptor (4 or 8 bytes) of the
/// note "Xen" of type 18.
/// @param alignment  4 or 8: what names and descriptors are padded to
/// @return empty if there is none, also where the notes are broken before it
std::optional<std::uint64_t> FindPvhEntry(std::span<const std::byte> notes, std::size_t alignment);

/// Loads a 64-bit x86 ELF file through its PVH entry: each PT_LOAD segment to its physical address,
/// start info version 1 with memory map, initrd as module 0, command line and RSDP.
/// @param head  the file's first kKernelHeadSize bytes, fewer if it is shorter
/// @return as LoadGuest
Result<LoadedGuest> LoadPvh(const AddressSpace& ram, const BootSource& source,
                            std::span<const std::byte> head);

}  // namespace holdfast::machine::boot
