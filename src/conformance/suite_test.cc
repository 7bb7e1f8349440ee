// SPDX-License-Identifier: Apache-2.0
#include "conformance/suite.h"

#include <gtest/gtest.h>

#include <set>

#include "model/model.h"

namespace holdfast::conformance {
namespace {

TEST(Suite, TheModelPassesEveryCase) {
  const SuiteResult result = RunSuite(AllCases(), nullptr, true);
  EXPECT_EQ(result.rows.size(), AllCases().size());
  for (const Row& row : result.rows) {
    if (row.model.kind == CaseResult::Kind::kFailed)
      ADD_FAILURE() << row.test->name << ": " << row.model.text;
    EXPECT_EQ(row.kernel.kind, CaseResult::Kind::kNotAsked) << row.test->name;
  }
  EXPECT_TRUE(result.passed());
}

TEST(Suite, TheModelOfEachReleasePassesItsOwn) {
  for (const auto& [major, minor] : {std::pair(6U, 18U), std::pair(7U, 1U), std::pair(7U, 2U)}) {
    for (const Case* const test : AllCases()) {
      model::Rules rules = model::Rules::OfRelease(major, minor);
      if (test->needs == Needs::kTwoLayers) rules = rules.WithTwoLayers();
      if (test->needs == Needs::kInPlace) rules = rules.WithInPlace();
      model::Model model(rules);
      Check check;
      test->run(model, check);
      EXPECT_EQ(check.difference(), "") << test->name << " as of " << major << "." << minor;
    }
  }
}

TEST(Suite, NamesAreUniqueAndMatchPatterns) {
  std::set<std::string_view> names;
  for (const Case* const test : AllCases())
    EXPECT_TRUE(names.insert(test->name).second) << test->name;
  EXPECT_EQ(CasesMatching("*").size(), names.size());
  EXPECT_EQ(CasesMatching("slot/far_binding").size(), 1U);
  EXPECT_GE(CasesMatching("in_place/*").size(), 10U);
  EXPECT_TRUE(CasesMatching("nothing*").empty());
}

const Case kGood{"good", Needs::kGuestMemfd, nullptr, "a remark"};
const Case kBad{"bad", Needs::kInPlace, nullptr, ""};

SuiteResult Example() {
  using Kind = CaseResult::Kind;
  return {"6.18.0",
          {{&kGood, {Kind::kPassed, ""}, {Kind::kPassed, ""}},
           {&kBad, {Kind::kNotOffered, "a newer kernel"}, {Kind::kFailed, "said \"no\""}}}};
}

TEST(Report, TapCountsEachSideAndSkipsWhatIsNotOffered) {
  EXPECT_EQ(FormatTap(Example()),
            "TAP version 13\n1..4\n"
            "ok 1 - good (kernel)\n"
            "ok 2 - good (model)\n"
            "ok 3 - bad (kernel) # SKIP needs a newer kernel\n"
            "not ok 4 - bad (model)\n# said \"no\"\n");
}

TEST(Report, JsonHoldsEverything) {
  const std::string text = FormatJson(Example());
  for (const char* part : {R"("release": "6.18.0")", R"("passed": false)", R"("name": "good")",
                           R"("kernel": {"result": "not-offered", "needs": "a newer kernel"})",
                           R"("model": {"result": "failed", "difference": "said \"no\""})",
                           R"("remark": "a remark")"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  }
}

TEST(Report, TheTableSaysWhatDiffersAndWhatIsMissing) {
  const std::string text = FormatTable(Example());
  EXPECT_NE(text.find("the model: said \"no\"; needs a newer kernel"), std::string::npos) << text;
  EXPECT_NE(text.find("Linux 6.18.0: 1 passed, 0 failed, 1 not offered"), std::string::npos);
  EXPECT_NE(text.find("the model: 1 passed, 1 failed, 0 not offered"), std::string::npos);
}

}  // namespace
}  // namespace holdfast::conformance
