// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "machine/boot/guest_image.h"

namespace holdfast::fuzz {

/// Loads `kernel` with an initrd and a command line into the RAM of a small PC, and traps unless
/// the answer keeps LoadGuest's promises: an entry in RAM for `protocol`, or an error that names
/// the file.
void LoadKernel(std::span<const std::uint8_t> kernel,
                machine::boot::LoadedGuest::Protocol protocol);

}  // namespace holdfast::fuzz
