// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

#include <holdfast/error.h>

namespace holdfast {

/// Owns one memory mapping; unmaps it once.
class Mapping {
 public:
  Mapping() noexcept = default;
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { Unmap(); }

  /// Maps `size` bytes of `fd` from `offset`, shared. `prot` and `extra_flags` are mmap's.
  /// `what` names the mapping in the error.
  static Result<Mapping> MapFile(int fd, std::uint64_t offset, std::size_t size, int prot,
                                 std::string_view what, int extra_flags = 0);

  /// What Map makes. `prot` and `flags` are mmap's.
  struct Request {
    int fd = -1;
    std::uint64_t offset = 0;
    std::size_t size = 0;
    int prot = 0;
    int flags = 0;                ///< MAP_SHARED or MAP_PRIVATE among them
    std::uint64_t alignment = 0;  ///< of the address, a power of two; 0: what the kernel chooses
  };
  /// Maps what the request says; `what` names the mapping in the error.
  static Result<Mapping> Map(const Request& request, std::string_view what);

  /// Maps `size` bytes of fresh zeroed memory that a fork shares.
  static Result<Mapping> MapAnonymous(std::size_t size, std::string_view what);

  std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  std::span<std::byte> bytes() const noexcept { return {data_, size_}; }
  std::uint64_t address() const noexcept { return reinterpret_cast<std::uint64_t>(data_); }

 private:
  Mapping(std::byte* data, std::size_t size) noexcept : data_(data), size_(size) {}
  void Unmap() noexcept;

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace holdfast
