// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace holdfast {

class AddressSpace;
class BlockConversion;
class HostWrites;

/// What somebody wants to do with guest memory.
enum class MemoryAccess : std::uint8_t {
  kRead,
  kWrite,  ///< once: it is done when the memory is let go
  /// Again and again for as long as it is held: a ring. While writes are tracked, all of it counts
  /// as written all the time.
  kKeepWriting,
};

/// Guest RAM that a device works on: host addresses of one or more guest physical ranges, in order.
///
/// The pieces stay usable for as long as the object exists; AddressSpace::Pin() makes them. Of
/// memory that can become private it holds the pages: until it is destroyed they stay shared, and a
/// guest that wants one private is told that it is busy. The
/// bytes are the guest's, who may change them at any time: read a field once, then check and use
/// the copy. Thread-safety: one thread at a time.
class GuestIoVec {
 public:
  GuestIoVec() = default;
  GuestIoVec(GuestIoVec&& other) noexcept
      : pieces_(std::exchange(other.pieces_, {})),
        size_(std::exchange(other.size_, 0)),
        pins_(std::exchange(other.pins_, {})),
        kept_(std::exchange(other.kept_, {})),
        writes_(std::exchange(other.writes_, nullptr)) {}
  GuestIoVec& operator=(GuestIoVec&& other) noexcept {
    if (this == &other) return *this;
    Release();
    pieces_ = std::exchange(other.pieces_, {});
    size_ = std::exchange(other.size_, 0);
    pins_ = std::exchange(other.pins_, {});
    kept_ = std::exchange(other.kept_, {});
    writes_ = std::exchange(other.writes_, nullptr);
    return *this;
  }
  GuestIoVec(const GuestIoVec&) = delete;
  GuestIoVec& operator=(const GuestIoVec&) = delete;
  ~GuestIoVec() { Release(); }

  /// For readv, io_uring and the like.
  std::span<const iovec> pieces() const noexcept { return pieces_; }
  /// Bytes in all pieces.
  std::uint64_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }

  /// Copies from the pieces, starting `offset` bytes in. @return bytes copied: less than asked for
  /// where the pieces end.
  std::size_t CopyOut(std::uint64_t offset, std::span<std::byte> to) const noexcept;
  /// Copies into the pieces. @return as CopyOut
  std::size_t CopyIn(std::uint64_t offset, std::span<const std::byte> from) const noexcept;
  /// The pieces of [offset, offset + length), cut to what there is; for a header and what follows
  /// it. Valid as long as this object.
  std::vector<iovec> Slice(std::uint64_t offset, std::uint64_t length) const;

 private:
  friend class AddressSpace;
  // What is held of a block, in its own offsets. The block outlives every GuestIoVec.
  struct Held {
    BlockConversion* block;
    std::uint64_t offset;
    std::uint64_t size;
  };
  // Lets go of all but the first `keep` held ranges.
  void Unpin(std::size_t keep) noexcept;
  // Says what may have been written, then lets go of everything.
  void Release() noexcept {
    if (writes_ != nullptr) TellWrites();
    Unpin(0);
  }
  void TellWrites() noexcept;

  std::vector<iovec> pieces_;
  std::uint64_t size_ = 0;
  std::vector<Held> pins_;  // empty for memory that is never private: nothing is allocated then
  std::vector<std::uint64_t> kept_;  // of kKeepWriting, in *writes_
  HostWrites* writes_ = nullptr;     // the address space's, which outlives this; null: only read
};

}  // namespace holdfast
