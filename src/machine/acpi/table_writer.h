// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

namespace holdfast::machine::acpi {

using Bytes = std::vector<std::uint8_t>;

/// What makes the bytes of `table` sum up to 0.
std::uint8_t Checksum(std::span<const std::uint8_t> table) noexcept;

/// Writes one ACPI table field by field, little-endian.
class TableWriter {
 public:
  /// Starts without a header (RSDP, FACS).
  TableWriter() = default;
  /// Starts with the header that most tables share; Finish() completes it.
  TableWriter(std::string_view signature, std::uint8_t revision);

  TableWriter& U8(std::uint8_t value) { return Number(value, 1); }
  TableWriter& U16(std::uint16_t value) { return Number(value, 2); }
  TableWriter& U32(std::uint32_t value) { return Number(value, 4); }
  TableWriter& U64(std::uint64_t value) { return Number(value, 8); }
  /// `text` without a final zero.
  TableWriter& Text(std::string_view text);
  TableWriter& Raw(std::span<const std::uint8_t> bytes);
  TableWriter& Zeros(std::size_t count);
  /// A generic address structure for `bits` of I/O port space at `port`; port 0 is "none".
  TableWriter& IoAddress(std::uint16_t port, std::uint8_t bits);

  std::size_t size() const noexcept { return bytes_.size(); }
  /// The table that was started with a header, its length and checksum filled in. The writer is
  /// empty afterwards.
  Bytes Finish();
  /// The bytes as they are; the writer is empty afterwards.
  Bytes Take() { return std::exchange(bytes_, {}); }

 private:
  TableWriter& Number(std::uint64_t value, unsigned size);
  Bytes bytes_;
};

}  // namespace holdfast::machine::acpi
