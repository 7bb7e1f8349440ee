// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <span>

#include <holdfast/address_space.h>
#include <holdfast/error.h>

#include "machine/boot/boot_source.h"
#include "machine/boot/guest_image.h"

namespace holdfast::machine::boot {

/// Bytes needed to recognise a bzImage: up to and with its "HdrS".
inline constexpr std::size_t kMinBzImageHead = 0x206;

/// Whether `head`, the start of a file, has the magic of Linux's setup header.
bool LooksLikeBzImage(std::span<const std::byte> head) noexcept;

/// Loads a Linux bzImage for its 64-bit entry point (Documentation/arch/x86/boot.rst, "64-bit boot
/// protocol"), at the address it prefers.
/// @param head  the file's first kKernelHeadSize bytes, fewer if it is shorter
/// @return as LoadGuest
Result<LoadedGuest> LoadBzImage(const AddressSpace& ram, const BootSource& source,
                                std::span<const std::byte> head);

}  // namespace holdfast::machine::boot
