// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace holdfast::kvm {

/// A kernel struct "count, padding, entries[]" with room for its entries. The kernel's own struct
/// types are of no use in C++ here (see kvm_abi.h on flexible arrays).
template <typename Entry, unsigned kHeaderSize>
class FlexBuffer {
 public:
  explicit FlexBuffer(std::size_t count)
      : storage_((kHeaderSize + count * sizeof(Entry) + 7) / 8), capacity_(count) {
    // The count is the header's first 32 bits (x86 is little-endian), the rest stays zero.
    storage_.at(0) = static_cast<std::uint32_t>(count);
  }
  explicit FlexBuffer(std::span<const Entry> entries) : FlexBuffer(entries.size()) {
    if (!entries.empty()) std::memcpy(bytes() + kHeaderSize, entries.data(), entries.size_bytes());
  }

  void* data() noexcept { return storage_.data(); }
  /// What the kernel filled in, by the count it left in the header.
  std::vector<Entry> Entries() const {
    std::uint32_t count = 0;
    std::memcpy(&count, storage_.data(), sizeof count);
    std::vector<Entry> entries(std::min<std::size_t>(count, capacity_));
    if (!entries.empty())
      std::memcpy(entries.data(), bytes() + kHeaderSize, entries.size() * sizeof(Entry));
    return entries;
  }

 private:
  std::byte* bytes() noexcept { return reinterpret_cast<std::byte*>(storage_.data()); }
  const std::byte* bytes() const noexcept {
    return reinterpret_cast<const std::byte*>(storage_.data());
  }

  std::vector<std::uint64_t> storage_;  // 8-byte aligned, as the kernel structs are
  std::size_t capacity_;
};

}  // namespace holdfast::kvm
