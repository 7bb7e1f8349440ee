// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <holdfast/error.h>

#include <functional>
#include <string>
#include <string_view>

namespace holdfast::bench {

/// One measurement; its unit is the comparison's.
using Measure = std::function<Result<double>()>;

/// Compares Holdfast with a baseline and prints one JSON object a line: name, value, unit,
/// baseline, baseline_value, ratio; values are medians.
class Report {
 public:
  /// `program` is for messages. `rounds` is how often each side is measured; only comparisons whose
  /// name starts with `only` are made.
  Report(std::string_view program, int rounds, std::string_view only)
      : program_(program), rounds_(rounds), only_(only) {}

  /// Measures ours and theirs in turn, so that a machine whose speed drifts treats both alike. What
  /// fails is said on stderr.
  void Compare(const std::string& name, const std::string& unit, const std::string& baseline,
               const Measure& ours, const Measure& theirs) {
    Compare(name, unit, baseline, ours, theirs, rounds_);
  }
  /// The same with a number of rounds of its own.
  void Compare(const std::string& name, const std::string& unit, const std::string& baseline,
               const Measure& ours, const Measure& theirs, int rounds);

  /// Whether a comparison whose name starts with `prefix` may be wanted: for what is dear to
  /// prepare.
  bool Wants(std::string_view prefix) const noexcept {
    return prefix.starts_with(only_) || std::string_view(only_).starts_with(prefix);
  }

  /// The program's exit status: 0 if nothing failed.
  int exit_status() const noexcept { return failed_ ? 1 : 0; }

 private:
  const std::string program_;
  const int rounds_;
  const std::string only_;
  bool failed_ = false;
};

/// The main function of a program whose line is `PROGRAM ROUNDS [NAME]`. @return its exit status
int RunBench(int argc, char** argv, std::string_view program,
             int (*run)(int rounds, std::string_view only));

}  // namespace holdfast::bench
