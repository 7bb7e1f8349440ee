// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>
#include <holdfast/guest_address.h>
#include <holdfast/page_attributes.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>

namespace holdfast {

class PagePins;

/// How pages become private and shared again.
enum class ConversionEngineKind : std::uint8_t {
  /// The kernel's in-place conversion: KVM_SET_MEMORY_ATTRIBUTES2 on the guest_memfd (as applied
  /// for
  /// Linux 7.4). The kernel itself keeps the host out.
  kKernel,
  /// Guard pages in the host view (Linux 6.18); the guest reads the same pages through its bound
  /// memslot. For VMs without memory encryption.
  kGuard,
  /// Two layers: KVM_SET_MEMORY_ATTRIBUTES on the VM (Linux 6.8), shared pages in a memfd, private
  /// ones in a guest_memfd; the side that went out of use is given back. Contents are lost.
  kAttributes,
};
/// "kernel", "guard", "attributes": the values of `conversion=`.
std::string_view ToString(ConversionEngineKind kind) noexcept;

/// What does the work for one RAM block. It is told only of ranges inside the block, page aligned
/// and not empty, by one thread at a time.
class ConversionEngine {
 public:
  virtual ~ConversionEngine() = default;
  virtual ConversionEngineKind kind() const noexcept = 0;
  /// Whether a page that is converted keeps what it holds; otherwise it is undefined.
  virtual bool contents_survive() const noexcept = 0;
  /// The kernel found a page in use: its offset, and nothing has changed. Else everything has.
  using Busy = std::optional<std::uint64_t>;
  /// Makes [offset, offset + size) `to`. Pages that are so already stay so.
  /// @return after a failure the range may be half-way: Apply() for what it was brings it back
  virtual Result<Busy> Apply(std::uint64_t offset, std::uint64_t size, MemoryAttribute to) = 0;
  /// The memory of [offset, offset + size), all of it private, was given back to the host: puts
  /// back what kept the host out, if it went with the memory.
  virtual Status KeepClosed(std::uint64_t /*offset*/, std::uint64_t /*size*/) { return {}; }
  /// The part of the block lies at `base` in the guest's physical address space.
  virtual void Mapped(GuestAddress /*base*/, std::uint64_t /*block_offset*/,
                      std::uint64_t /*size*/) {}
};

/// What is asked of a block: the same words as the kernel's ioctl has.
struct ConversionRequest {
  std::uint64_t offset = 0;  ///< in the block, page aligned
  std::uint64_t size = 0;    ///< not 0, page aligned
  MemoryAttribute to = MemoryAttribute::kPrivate;
  std::uint64_t flags = 0;                      ///< none is defined: 0
  std::array<std::uint64_t, 11> reserved = {};  ///< 0
};

/// What became of it.
struct ConversionOutcome {
  std::uint64_t changed_pages = 0;  ///< 0 where all was so already
  /// Some page of the range is pinned: nothing has changed, and this is the first one's offset.
  /// Ask again when whoever holds it is done.
  std::optional<std::uint64_t> busy_offset;
  std::size_t busy_piece = 0;  ///< of ConvertAll(): the piece it lies in
};

/// Shared and private pages of one RAM block, and the only way from one to the other.
///
/// The contract is the same with every engine. A request is checked in this order, and refused with
/// kInvalidArgument: flags, reserved, alignment, empty, overflow, beyond the end. If every page is
/// already what is asked, that is success, whoever holds them. Going private with a pinned page
/// changes nothing and names the first one; going shared never waits for pins. Exactly the pages
/// asked for change, all of them or none. Freeing and allocating memory change no attribute.
///
/// Thread-safety: all functions on any thread. Conversions of one block follow each other (mutex_);
/// TryPin() is lock-free unless its range is being converted, and then waits for that.
class BlockConversion {
 public:
  /// For a block of `size` bytes. With `initial` kPrivate all of it becomes private now.
  /// @return kUnsupported for a block beyond 16 TiB; the engine's error
  static Result<std::unique_ptr<BlockConversion>> Create(std::uint64_t size,
                                                         std::unique_ptr<ConversionEngine> engine,
                                                         MemoryAttribute initial);
  BlockConversion(const BlockConversion&) = delete;
  BlockConversion& operator=(const BlockConversion&) = delete;
  ~BlockConversion();

  ConversionEngine& engine() const noexcept { return *engine_; }
  const PageAttributes& attributes() const noexcept { return attributes_; }

  Result<ConversionOutcome> Convert(const ConversionRequest& request);

  /// A range of a block that has passed the checks of a request.
  struct Piece {
    BlockConversion* block;
    std::uint64_t offset;
    std::uint64_t size;
  };
  /// Converts all pieces or none; they may be of several blocks, or twice of one, but must not
  /// overlap. @return as Convert()
  static Result<ConversionOutcome> ConvertAll(std::span<const Piece> pieces, MemoryAttribute to);

  /// To be called after memory of [offset, offset + size), page aligned, was freed: what is private
  /// stays closed to the host. @return the engine's error
  Status MemoryFreed(std::uint64_t offset, std::uint64_t size);

  /// Holds the pages that [offset, offset + size) touches, which must be inside the block, for
  /// access by the host: until Unpin() with the same range they stay shared.
  /// @return false if one of them is private; then nothing is held
  bool TryPin(std::uint64_t offset, std::uint64_t size) noexcept;
  void Unpin(std::uint64_t offset, std::uint64_t size) noexcept;

 private:
  // First and last page of what is being converted; first > last: nothing.
  class Changing;
  BlockConversion(std::uint64_t size, std::unique_ptr<ConversionEngine> engine, PagePins pins,
                  MemoryAttribute initial);
  Status Check(const ConversionRequest& request) const;
  // `blocks`: those of the pieces, each once; their mutexes are held.
  static Result<ConversionOutcome> ConvertLocked(std::span<const Piece> pieces,
                                                 std::span<BlockConversion* const> blocks,
                                                 MemoryAttribute to);
  Result<ConversionOutcome> ConvertOne(std::uint64_t offset, std::uint64_t size,
                                       MemoryAttribute to);
  Status Restore(std::uint64_t offset, std::uint64_t size, MemoryAttribute to);

  const std::uint64_t size_;
  const std::unique_ptr<ConversionEngine> engine_;  // used under mutex_
  PageAttributes attributes_;                       // changed under mutex_
  const std::unique_ptr<PagePins> pins_;
  std::mutex mutex_;                     // of several blocks, taken in the order of their addresses
  std::atomic<std::uint64_t> changing_;  // set under mutex_
};

}  // namespace holdfast
