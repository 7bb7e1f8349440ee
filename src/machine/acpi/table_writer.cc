// SPDX-License-Identifier: Apache-2.0
#include "machine/acpi/table_writer.h"

#include <numeric>
#include <utility>

namespace holdfast::machine::acpi {
namespace {

constexpr std::size_t kLengthOffset = 4;
constexpr std::size_t kChecksumOffset = 9;
constexpr std::string_view kOemId = "HLDFST";         // 6 characters
constexpr std::string_view kOemTableId = "HOLDFAST";  // 8
constexpr std::string_view kCreatorId = "HDFT";       // 4

constexpr std::uint8_t kSystemIoSpace = 1;
constexpr std::uint8_t kAccessByte = 1;
constexpr std::uint8_t kAccessWord = 2;
constexpr std::uint8_t kAccessDword = 3;

}  // namespace

std::uint8_t Checksum(std::span<const std::uint8_t> table) noexcept {
  return static_cast<std::uint8_t>(-std::accumulate(table.begin(), table.end(), 0u));
}

TableWriter::TableWriter(std::string_view signature, std::uint8_t revision) {
  Text(signature).U32(0).U8(revision).U8(0);  // length and checksum: Finish()
  Text(kOemId).Text(kOemTableId).U32(1).Text(kCreatorId).U32(1);
}

TableWriter& TableWriter::Number(std::uint64_t value, unsigned size) {
  for (unsigned i = 0; i < size; ++i) bytes_.push_back(static_cast<std::uint8_t>(value >> (8 * i)));
  return *this;
}

TableWriter& TableWriter::Text(std::string_view text) {
  for (const char c : text) bytes_.push_back(static_cast<std::uint8_t>(c));
  return *this;
}

TableWriter& TableWriter::Raw(std::span<const std::uint8_t> bytes) {
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
  return *this;
}

TableWriter& TableWriter::Zeros(std::size_t count) {
  bytes_.resize(bytes_.size() + count);
  return *this;
}

TableWriter& TableWriter::IoAddress(std::uint16_t port, std::uint8_t bits) {
  if (port == 0) return Zeros(12);
  // Blocks wider than a register (PM1 events, GPEs) are accessed as their registers are.
  const std::uint8_t access = bits == 16 ? kAccessWord : bits == 32 ? kAccessDword : kAccessByte;
  return U8(kSystemIoSpace).U8(bits).U8(0).U8(access).U64(port);
}

Bytes TableWriter::Finish() {
  for (unsigned i = 0; i < 4; ++i)
    bytes_[kLengthOffset + i] = static_cast<std::uint8_t>(bytes_.size() >> (8 * i));
  bytes_[kChecksumOffset] = Checksum(bytes_);
  return Take();
}

}  // namespace holdfast::machine::acpi
