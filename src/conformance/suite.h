// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "conformance/case.h"
#include "conformance/host_kernel.h"

namespace holdfast::conformance {

/// What became of a case on one side.
struct CaseResult {
  enum class Kind : std::uint8_t {
    kNotAsked,
    kPassed,
    kFailed,      ///< `text` is the first difference
    kNotOffered,  ///< `text` is what is missing
  };
  Kind kind = Kind::kNotAsked;
  std::string text;
};

struct Row {
  const Case* test;
  CaseResult kernel;
  CaseResult model;
};

struct SuiteResult {
  std::string release;  ///< of the running kernel; empty if it was not asked
  std::vector<Row> rows;

  bool passed() const;
  std::size_t Count(CaseResult::Kind kind, bool of_kernel) const;
};

/// All cases, in the order in which they run.
std::vector<const Case*> AllCases();
/// Those whose names match a pattern with * and ? (as a file name does).
std::vector<const Case*> CasesMatching(std::string_view pattern);

/// Runs the cases on both sides. The model has the rules of the running kernel, or of the newest
/// release without one, and private memory where a case needs it.
/// @param kernel  null: none is asked
SuiteResult RunSuite(const std::vector<const Case*>& cases, HostKernel* kernel, bool ask_model);

/// What has been found, for people, as TAP (version 13) and as one JSON object.
std::string FormatTable(const SuiteResult& result);
std::string FormatTap(const SuiteResult& result);
std::string FormatJson(const SuiteResult& result);

}  // namespace holdfast::conformance
