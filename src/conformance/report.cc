// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <string>

#include "conformance/suite.h"

namespace holdfast::conformance {
namespace {

std::string_view Word(CaseResult::Kind kind) {
  switch (kind) {
    case CaseResult::Kind::kNotAsked:
      return "-";
    case CaseResult::Kind::kPassed:
      return "ok";
    case CaseResult::Kind::kFailed:
      return "DIFFERS";
    case CaseResult::Kind::kNotOffered:
      return "not offered";
  }
  return "?";
}

std::string Quoted(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += c >= ' ' ? c : ' ';
  }
  return quoted + '"';
}

// What there is to say about a row, most important first.
std::string Remark(const Row& row) {
  std::string remark;
  const auto add = [&](std::string_view text) {
    if (text.empty()) return;
    if (!remark.empty()) remark += "; ";
    remark += text;
  };
  if (row.kernel.kind == CaseResult::Kind::kFailed) add("the kernel: " + row.kernel.text);
  if (row.model.kind == CaseResult::Kind::kFailed) add("the model: " + row.model.text);
  if (row.kernel.kind == CaseResult::Kind::kNotOffered) add("needs " + row.kernel.text);
  add(row.test->remark);
  return remark;
}

std::string Json(const CaseResult& result) {
  switch (result.kind) {
    case CaseResult::Kind::kNotAsked:
      return "null";
    case CaseResult::Kind::kPassed:
      return R"({"result": "passed"})";
    case CaseResult::Kind::kFailed:
      return fmt::format(R"({{"result": "failed", "difference": {}}})", Quoted(result.text));
    case CaseResult::Kind::kNotOffered:
      return fmt::format(R"({{"result": "not-offered", "needs": {}}})", Quoted(result.text));
  }
  return "null";
}

}  // namespace

std::string FormatTable(const SuiteResult& result) {
  std::size_t width = 4;
  for (const Row& row : result.rows) width = std::max(width, row.test->name.size());
  std::string text =
      fmt::format("{:<{}}  {:<11}  {:<7}  remark\n", "case", width, "kernel", "model");
  for (const Row& row : result.rows) {
    const std::string remark = Remark(row);
    std::string line = fmt::format("{:<{}}  {:<11}  {:<7}  {}", row.test->name, width,
                                   Word(row.kernel.kind), Word(row.model.kind), remark);
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
  using Kind = CaseResult::Kind;
  const auto summary = [&](std::string_view side, bool of_kernel) {
    text += fmt::format(
        "{}: {} passed, {} failed, {} not offered\n", side, result.Count(Kind::kPassed, of_kernel),
        result.Count(Kind::kFailed, of_kernel), result.Count(Kind::kNotOffered, of_kernel));
  };
  text += '\n';
  if (!result.release.empty()) summary("Linux " + result.release, true);
  if (result.Count(Kind::kNotAsked, false) < result.rows.size()) summary("the model", false);
  return text;
}

std::string FormatTap(const SuiteResult& result) {
  std::string lines;
  std::size_t number = 0;
  const auto add = [&](const Row& row, std::string_view side, const CaseResult& one) {
    if (one.kind == CaseResult::Kind::kNotAsked) return;
    const bool failed = one.kind == CaseResult::Kind::kFailed;
    lines += fmt::format(
        "{} {} - {} ({}){}\n", failed ? "not ok" : "ok", ++number, row.test->name, side,
        one.kind == CaseResult::Kind::kNotOffered ? " # SKIP needs " + one.text : std::string());
    if (failed) lines += "# " + one.text + '\n';
  };
  for (const Row& row : result.rows) {
    add(row, "kernel", row.kernel);
    add(row, "model", row.model);
  }
  return fmt::format("TAP version 13\n1..{}\n{}", number, lines);
}

std::string FormatJson(const SuiteResult& result) {
  std::string text =
      fmt::format("{{\n  \"release\": {},\n  \"passed\": {},\n  \"cases\": [\n",
                  result.release.empty() ? "null" : Quoted(result.release), result.passed());
  for (std::size_t i = 0; i < result.rows.size(); ++i) {
    const Row& row = result.rows[i];
    text += fmt::format("    {{\"name\": {}, \"kernel\": {}, \"model\": {}, \"remark\": {}}}{}\n",
                        Quoted(row.test->name), Json(row.kernel), Json(row.model),
                        Quoted(row.test->remark), i + 1 < result.rows.size() ? "," : "");
  }
  return text + "  ]\n}\n";
}

}  // namespace holdfast::conformance
