// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include <holdfast/error.h>

namespace holdfast {

/// The bytes of a well-formed UUID as firmware tables store them: the first three parts
/// little-endian (SMBIOS 3.0, 7.2.1). Thread-safety: any thread.
std::array<std::uint8_t, 16> FirmwareUuid(std::string_view text) noexcept;

/// A random UUID (RFC 9562, version 4). @return the failed getrandom
Result<std::string> RandomUuid();

}  // namespace holdfast
