// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::machine::smbios {

using Bytes = std::vector<std::uint8_t>;

/// Writes one SMBIOS structure field by field, little-endian, its texts behind it.
class StructureWriter {
 public:
  StructureWriter(std::uint8_t type, std::uint16_t handle) { U8(type).U8(0).U16(handle); }

  StructureWriter& U8(std::uint8_t value) { return Number(value, 1); }
  StructureWriter& U16(std::uint16_t value) { return Number(value, 2); }
  StructureWriter& U32(std::uint32_t value) { return Number(value, 4); }
  StructureWriter& U64(std::uint64_t value) { return Number(value, 8); }
  /// A field that names `text`; an empty one is none. Zero bytes in it end it.
  StructureWriter& Text(std::string_view text) {
    text = text.substr(0, text.find('\0'));
    if (text.empty()) return U8(0);
    texts_.emplace_back(text);
    return U8(static_cast<std::uint8_t>(texts_.size()));
  }
  /// Adds a text that no field names (OEM strings are counted, not numbered).
  void UnnamedText(std::string_view text) { texts_.emplace_back(text.substr(0, text.find('\0'))); }

  /// The structure with its length filled in.
  Bytes Finish() {
    bytes_[1] = static_cast<std::uint8_t>(bytes_.size());
    for (const std::string& text : texts_) {
      bytes_.insert(bytes_.end(), text.begin(), text.end());
      bytes_.push_back(0);
    }
    if (texts_.empty()) bytes_.push_back(0);
    bytes_.push_back(0);
    return std::move(bytes_);
  }

 private:
  StructureWriter& Number(std::uint64_t value, unsigned size) {
    for (unsigned i = 0; i < size; ++i) {
      bytes_.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
    }
    return *this;
  }
  Bytes bytes_;
  std::vector<std::string> texts_;
};

}  // namespace holdfast::machine::smbios
