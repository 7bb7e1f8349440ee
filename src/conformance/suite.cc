// SPDX-License-Identifier: Apache-2.0
#include "conformance/suite.h"

#include <fnmatch.h>

#include <algorithm>

#include "model/model.h"

namespace holdfast::conformance {
namespace {

// Empty: the kernel has what the case needs.
std::string_view Missing(const model::Rules& rules, Needs needs) {
  switch (needs) {
    case Needs::kGuestMemfd:
      return "";
    case Needs::kPreFault:
      return rules.pre_fault ? "" : "KVM_PRE_FAULT_MEMORY (Linux 6.11, EPT or NPT)";
    case Needs::kTwoLayers:
      return rules.vm_attributes ? "" : "software-protected VMs (CONFIG_KVM_SW_PROTECTED_VM)";
    case Needs::kInPlace:
      return rules.in_place ? "" : "in-place conversion (a kernel after 7.3)";
  }
  return "";
}

CaseResult RunOne(const Case& test, model::Kernel& kernel) {
  Check check;
  test.run(kernel, check);
  using Kind = CaseResult::Kind;
  if (!check.difference().empty()) return {Kind::kFailed, check.difference()};
  if (!check.not_offered().empty()) return {Kind::kNotOffered, check.not_offered()};
  return {Kind::kPassed, {}};
}

model::Rules RulesForModel(model::Rules base, Needs needs) {
  base.pre_fault = true;
  switch (needs) {
    case Needs::kTwoLayers:
      return base.WithTwoLayers();
    case Needs::kInPlace:
      return base.WithInPlace();
    default:
      return base;
  }
}

}  // namespace

bool SuiteResult::passed() const {
  return std::ranges::none_of(rows, [](const Row& row) {
    return row.kernel.kind == CaseResult::Kind::kFailed ||
           row.model.kind == CaseResult::Kind::kFailed;
  });
}

std::size_t SuiteResult::Count(CaseResult::Kind kind, bool of_kernel) const {
  return static_cast<std::size_t>(std::ranges::count_if(
      rows, [&](const Row& row) { return (of_kernel ? row.kernel : row.model).kind == kind; }));
}

std::vector<const Case*> AllCases() {
  std::vector<const Case*> all;
  for (const auto cases :
       {FileCases(), HostCases(), SlotCases(), GuestCases(), TwoLayerCases(), InPlaceCases()}) {
    for (const Case& test : cases) all.push_back(&test);
  }
  return all;
}

std::vector<const Case*> CasesMatching(std::string_view pattern) {
  std::vector<const Case*> matching = AllCases();
  const std::string text(pattern);
  std::erase_if(matching, [&](const Case* test) {
    return ::fnmatch(text.c_str(), std::string(test->name).c_str(), 0) != 0;
  });
  return matching;
}

SuiteResult RunSuite(const std::vector<const Case*>& cases, HostKernel* kernel, bool ask_model) {
  SuiteResult result;
  if (kernel != nullptr) result.release = kernel->release();
  const model::Rules base = kernel != nullptr ? kernel->rules() : model::Rules::OfRelease(7, 4);
  for (const Case* const test : cases) {
    Row row{test, {}, {}};
    if (kernel != nullptr) {
      const std::string_view missing = Missing(base, test->needs);
      if (!missing.empty()) {
        row.kernel = {CaseResult::Kind::kNotOffered, std::string(missing)};
      } else {
        row.kernel = RunOne(*test, *kernel);
        kernel->CloseAll();
      }
    }
    if (ask_model) {
      model::Model model(RulesForModel(base, test->needs));
      row.model = RunOne(*test, model);
    }
    result.rows.push_back(std::move(row));
  }
  return result;
}

}  // namespace holdfast::conformance
