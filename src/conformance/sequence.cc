// SPDX-License-Identifier: Apache-2.0
#include "conformance/sequence.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>

#include "conformance/case.h"

namespace holdfast::conformance {
namespace {

constexpr std::size_t kLength = 64;
constexpr int kShrinkRounds = 8;

// The words of a line up to a #.
std::vector<std::string_view> Words(std::string_view line) {
  line = line.substr(0, line.find('#'));
  std::vector<std::string_view> words;
  while (true) {
    const std::size_t from = line.find_first_not_of(" \t\r");
    if (from == std::string_view::npos) return words;
    line.remove_prefix(from);
    const std::size_t end = std::min(line.find_first_of(" \t\r"), line.size());
    words.push_back(line.substr(0, end));
    line.remove_prefix(end);
  }
}

std::size_t ArgumentCount(const OpSpec& spec) {
  return static_cast<std::size_t>(std::ranges::find(spec.limits, 0) - spec.limits.begin());
}

std::optional<Op> ParseOp(OpTable table, const std::vector<std::string_view>& words) {
  const auto spec = std::ranges::find(table, words[0], &OpSpec::name);
  if (spec == table.end() || words.size() != ArgumentCount(*spec) + 1) return std::nullopt;
  Op op;
  op.kind = static_cast<std::uint8_t>(spec - table.begin());
  for (std::size_t i = 1; i < words.size(); ++i) {
    const std::string_view word = words[i];
    std::uint8_t& value = op.arguments.at(i - 1);
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
    if (error != std::errc() || end != word.data() + word.size() ||
        value >= spec->limits.at(i - 1)) {
      return std::nullopt;
    }
  }
  return op;
}

}  // namespace

std::uint64_t Random::Next() noexcept {
  state_ += 0x9e3779b97f4a7c15;
  std::uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

Sequence RandomSequence(OpTable table, const Sequence& start, std::size_t length,
                        std::uint64_t seed) {
  Random random(seed);
  const bool slow = random.Below(4) == 0;
  const auto weight = [&](const OpSpec& spec) { return slow || !spec.slow ? spec.weight : 0; };
  Sequence sequence;
  if (random.Below(8) != 0) {
    for (const Op& op : start)
      if (weight(table[op.kind]) != 0) sequence.push_back(op);
  }
  unsigned total = 0;
  for (const OpSpec& spec : table) total += weight(spec);
  while (sequence.size() < length) {
    auto rest = static_cast<unsigned>(random.Below(total));
    Op op;
    while (rest >= weight(table[op.kind])) rest -= weight(table[op.kind++]);
    const OpSpec& spec = table[op.kind];
    for (std::size_t i = 0; i < ArgumentCount(spec); ++i)
      op.arguments.at(i) = static_cast<std::uint8_t>(random.Below(spec.limits.at(i)));
    sequence.push_back(op);
  }
  return sequence;
}

std::string Format(OpTable table, const Op& op) {
  const OpSpec& spec = table[op.kind];
  std::string text(spec.name);
  for (std::size_t i = 0; i < ArgumentCount(spec); ++i)
    text += fmt::format(" {}", op.arguments.at(i));
  return text;
}

Result<Sequence> ParseSequence(OpTable table, std::string_view text) {
  Sequence sequence;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const auto words = Words(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (words.empty()) continue;
    const auto op = ParseOp(table, words);
    if (!op) {
      return Fail(Errc::kMalformed,
                  fmt::format("line {}: '{}' with its arguments is no operation", number, words[0]),
                  "Use what --fuzz printed, with the same --engine.");
    }
    sequence.push_back(*op);
  }
  return sequence;
}

std::string Format(const OpAnswer& answer) {
  std::string text = Text(answer.code);
  if (answer.value != 0) text += fmt::format(", {:#x}", answer.value);
  if (answer.extra != 0) text += fmt::format(", {:#x}", answer.extra);
  return text;
}

std::optional<Difference> Compare(const Comparison& sides, const Sequence& sequence) {
  sides.tested->Reset();
  sides.expected->Reset();
  for (std::size_t i = 0; i < sequence.size(); ++i) {
    const OpAnswer tested = sides.tested->Apply(sequence[i]);
    const OpAnswer expected = sides.expected->Apply(sequence[i]);
    if (tested != expected) return Difference{i, tested, expected};
  }
  return std::nullopt;
}

Sequence Shrink(const Comparison& sides, Sequence sequence) {
  const auto keep_if_different = [&](const Sequence& candidate) {
    const auto difference = Compare(sides, candidate);
    if (!difference) return false;
    sequence = candidate;
    sequence.resize(difference->index + 1);
    return true;
  };
  keep_if_different(Sequence(sequence));
  for (int round = 0; round < kShrinkRounds; ++round) {
    const Sequence before = sequence;
    // Without a part of it, large parts first.
    for (std::size_t part = std::max<std::size_t>(sequence.size() / 2, 1); part > 0; part /= 2) {
      for (std::size_t at = 0; at + part <= sequence.size();) {
        Sequence without = sequence;
        const auto first = without.begin() + static_cast<std::ptrdiff_t>(at);
        without.erase(first, first + static_cast<std::ptrdiff_t>(part));
        if (without.empty() || !keep_if_different(without)) ++at;
      }
    }
    // With smaller numbers.
    for (std::size_t i = 0; i < sequence.size(); ++i) {
      for (std::size_t argument = 0; argument < kMostArguments; ++argument) {
        for (const int smaller : {0, 1, 2}) {
          if (i >= sequence.size() || sequence[i].arguments.at(argument) <= smaller) break;
          Sequence simpler = sequence;
          simpler[i].arguments.at(argument) = static_cast<std::uint8_t>(smaller);
          if (keep_if_different(simpler)) break;
        }
      }
    }
    if (sequence == before) break;
  }
  return sequence;
}

Sequence SequenceOfSeed(const Comparison& sides, std::uint64_t seed) {
  return RandomSequence(sides.table, sides.start, kLength, seed);
}

FuzzOutcome Fuzz(const Comparison& sides, std::uint64_t operations, std::uint64_t seed) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  FuzzOutcome outcome;
  Random seeds(seed);
  while (outcome.operations < operations) {
    outcome.seed = seeds.Next();
    const Sequence sequence = SequenceOfSeed(sides, outcome.seed);
    const auto difference = Compare(sides, sequence);
    outcome.operations += difference ? difference->index + 1 : sequence.size();
    if (difference) {
      outcome.shortest = Shrink(sides, sequence);
      break;
    }
  }
  outcome.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return outcome;
}

std::string Describe(const Comparison& sides, const Sequence& sequence) {
  sides.tested->Reset();
  sides.expected->Reset();
  std::string text;
  for (const Op& op : sequence) {
    const OpAnswer tested = sides.tested->Apply(op);
    const OpAnswer expected = sides.expected->Apply(op);
    const std::string line = Format(sides.table, op);
    if (tested != expected) {
      return text + fmt::format("{:<24} # {}, but the model says {}\n", line, Format(tested),
                                Format(expected));
    }
    text += fmt::format("{:<24} # {}\n", line, Format(tested));
  }
  return text;
}

}  // namespace holdfast::conformance
