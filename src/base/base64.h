// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast {

/// The bytes that `text` stands for (RFC 4648, section 4). White space between the characters is
/// skipped. @return nothing where it is not base64: other characters, a length that is no multiple
/// of four, padding elsewhere than at the end, or bits behind the last byte that are not zero.
/// Thread-safety: any thread.
std::optional<std::vector<std::byte>> DecodeBase64(std::string_view text);

/// `bytes` in base64, padded, on one line. Thread-safety: any thread.
std::string EncodeBase64(std::span<const std::byte> bytes);

}  // namespace holdfast
