// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/address_space.h>
#include <holdfast/conversion.h>
#include <holdfast/error.h>
#include <holdfast/guest_address.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

namespace holdfast {

/// What a guest asks for when it wants memory private or shared: ranges of guest physical
/// addresses, over several blocks if need be, all of it or nothing.
///
/// Thread-safety: all functions on any thread.
class GuestConverter {
 public:
  /// For the RAM of `memory`, which outlives the converter.
  explicit GuestConverter(const AddressSpace& memory) noexcept : memory_(memory) {}

  /// Of the first RAM that can become private; empty: none can.
  std::optional<ConversionEngineKind> engine() const;

  struct Outcome {
    std::uint64_t changed_pages = 0;
    /// A device works on a page of the range: nothing has changed, and this is the first such page.
    std::optional<GuestAddress> busy;
  };

  /// Makes [from, from + size) `to`. Parts without RAM count as shared: asking for them to be
  /// shared is right and does nothing, asking for them to be private is refused.
  /// @return kInvalidArgument for a range that is empty, not page aligned, wraps, or holds memory
  ///         that cannot be private; else the engine's error. Nothing has changed then.
  Result<Outcome> Convert(GuestAddress from, std::uint64_t size, MemoryAttribute to);
  /// The same, but a busy page is asked for again and again until `patience` has passed.
  Result<Outcome> ConvertPatiently(GuestAddress from, std::uint64_t size, MemoryAttribute to,
                                   std::chrono::milliseconds patience);

  /// Guest RAM as ranges of one attribute, in order; memory that cannot be private is shared.
  struct Range {
    GuestAddress start;
    std::uint64_t size;
    MemoryAttribute attribute;
  };
  /// @param from  where to begin, page aligned; what is below is left out
  /// @param most  so many ranges at most: a guest can make half as many as it has pages
  std::vector<Range> Ranges(GuestAddress from = {}, std::size_t most = SIZE_MAX) const;
  /// Bytes that are private now.
  std::uint64_t private_bytes() const;

  /// What has been done since the start. A conversion that found everything as asked counts.
  struct Statistics {
    std::uint64_t to_private = 0;  ///< conversions
    std::uint64_t to_shared = 0;
    std::uint64_t private_pages = 0;  ///< pages that became private
    std::uint64_t shared_pages = 0;
    std::uint64_t busy = 0;     ///< refused because of a pinned page; each attempt counts
    std::uint64_t refused = 0;  ///< refused for any other reason
    /// Conversions by the time they took: below 1 us, 2 us, 4 us …; the last holds all longer ones.
    std::array<std::uint64_t, 24> time_us{};
  };
  Statistics statistics() const noexcept;

 private:
  Result<std::vector<BlockConversion::Piece>> Pieces(GuestAddress from, std::uint64_t size,
                                                     MemoryAttribute to) const;
  GuestAddress AddressOf(const BlockConversion::Piece& piece, std::uint64_t offset) const;
  void Count(MemoryAttribute to, std::uint64_t pages, std::chrono::steady_clock::duration time);

  using Counter = std::atomic<std::uint64_t>;
  const AddressSpace& memory_;
  Counter to_private_{0}, to_shared_{0}, private_pages_{0}, shared_pages_{0}, busy_{0}, refused_{0};
  std::array<Counter, std::tuple_size_v<decltype(Statistics::time_us)>> time_us_{};
};

}  // namespace holdfast
