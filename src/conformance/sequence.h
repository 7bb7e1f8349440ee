// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::conformance {

/// Numbers that look random and follow from a seed (SplitMix64).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t Next() noexcept;
  /// Below `limit`, which is not 0.
  std::uint64_t Below(std::uint64_t limit) noexcept { return Next() % limit; }

 private:
  std::uint64_t state_;
};

inline constexpr std::size_t kMostArguments = 6;

/// A kind of operation that a fuzzed sequence is made of.
struct OpSpec {
  std::string_view name;
  unsigned weight;  ///< how often it comes, compared with the others
  /// Each argument is below its limit; 0: there is none, nor any after it.
  std::array<std::uint8_t, kMostArguments> limits;
  bool slow = false;  ///< in one sequence of four only
};
using OpTable = std::span<const OpSpec>;

struct Op {
  std::uint8_t kind = 0;  ///< in the table
  std::array<std::uint8_t, kMostArguments> arguments = {};
  bool operator==(const Op&) const = default;
};
using Sequence = std::vector<Op>;

/// `length` operations after `start`, which most sequences begin with.
Sequence RandomSequence(OpTable table, const Sequence& start, std::size_t length,
                        std::uint64_t seed);

/// "write 0 3 17": one operation, as in a file for --replay.
std::string Format(OpTable table, const Op& op);
/// One operation a line; empty lines and what follows a # do not count.
/// @return kMalformed with the line's number
Result<Sequence> ParseSequence(OpTable table, std::string_view text);

/// What an operation was answered; two that are equal mean the same.
struct OpAnswer {
  std::int64_t code = 0;
  std::uint64_t value = 0;
  std::uint64_t extra = 0;
  bool operator==(const OpAnswer&) const = default;
};
std::string Format(const OpAnswer& answer);

/// One side of a comparison. Thread-safety: one thread.
class Subject {
 public:
  virtual ~Subject() = default;
  /// Back to the start: as if nothing had been done.
  virtual void Reset() = 0;
  virtual OpAnswer Apply(const Op& op) = 0;
};

/// Where two sides differ.
struct Difference {
  std::size_t index;  ///< of the operation in the sequence
  OpAnswer tested;
  OpAnswer expected;
};

/// What is compared: `tested` with what `expected` says.
struct Comparison {
  OpTable table;
  Sequence start;  ///< what most sequences begin with
  Subject* tested;
  Subject* expected;
};

/// Does the sequence on both sides. @return the first difference
std::optional<Difference> Compare(const Comparison& sides, const Sequence& sequence);
/// The shortest and simplest sequence found that still differs; `sequence` must differ.
Sequence Shrink(const Comparison& sides, Sequence sequence);

struct FuzzOutcome {
  std::uint64_t operations = 0;
  double seconds = 0;
  std::uint64_t seed = 0;  ///< of the sequence that differed
  Sequence shortest;       ///< empty: there was no difference
};
/// Random sequences until `operations` are done or one differs.
FuzzOutcome Fuzz(const Comparison& sides, std::uint64_t operations, std::uint64_t seed);
/// The sequence of a seed that Fuzz() named.
Sequence SequenceOfSeed(const Comparison& sides, std::uint64_t seed);
/// Each operation with what both sides answered, up to the first difference.
std::string Describe(const Comparison& sides, const Sequence& sequence);

}  // namespace holdfast::conformance
