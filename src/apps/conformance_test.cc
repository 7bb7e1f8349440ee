// SPDX-License-Identifier: Apache-2.0
#include "apps/conformance.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace holdfast::apps {
namespace {

CtlOutcome Call(const std::vector<const char*>& words) {
  return RunConformance(words);
}

TEST(Conformance, RefusesAWrongCommandLineWithARemedy) {
  const struct {
    std::vector<const char*> words;
    const char* error;
  } kCases[] = {
      {{"suite"},
       "holdfast-conformance: invalid argument 'suite'. Write holdfast-conformance --help for what "
       "there is.\n"},
      {{"--against", "windows"},
       "holdfast-conformance: --against does not accept value 'windows'. Write kernel, model or "
       "both.\n"},
      {{"--against"},
       "holdfast-conformance: --against requires an argument. Write --against "
       "kernel|model|both.\n"},
      {{"--filter", "x*"},
       "holdfast-conformance: --filter does not accept value 'x*'. No case has such a name; --list "
       "shows them.\n"},
      {{"--against", "model", "--tap", "--json"},
       "holdfast-conformance: --tap and --json exclude each other. Give one of them.\n"},
      {{"--seed", "1"}, "holdfast-conformance: --seed needs --fuzz. As in --fuzz 100000.\n"},
      {{"--engine", "guard"},
       "holdfast-conformance: --engine needs --fuzz. As in --fuzz 100000.\n"},
      {{"--fuzz", "1", "--replay", "1"},
       "holdfast-conformance: --fuzz and --replay exclude each other. Give one of them.\n"},
      {{"--fuzz", "1", "--engine", "magic"},
       "holdfast-conformance: --engine does not accept value 'magic'. Write kernel, guard or "
       "attributes.\n"},
  };
  for (const auto& test : kCases) {
    const CtlOutcome outcome = Call(test.words);
    EXPECT_EQ(outcome.exit_status, EXIT_FAILURE) << test.error;
    EXPECT_EQ(outcome.error, test.error);
    EXPECT_EQ(outcome.output, "");
  }
}

TEST(Conformance, TheModelPassesInEveryFormat) {
  const CtlOutcome table = Call({"--against=model"});
  EXPECT_EQ(table.exit_status, EXIT_SUCCESS) << table.output << table.error;
  EXPECT_NE(table.output.find("the model: "), std::string::npos);
  EXPECT_EQ(table.output.find("DIFFERS"), std::string::npos);
  const CtlOutcome tap = Call({"--against", "model", "--filter", "slot/*", "--tap"});
  EXPECT_EQ(tap.output.rfind("TAP version 13\n1..7\nok 1 - slot/flags (model)\n", 0), 0U)
      << tap.output;
  const CtlOutcome json = Call({"--against", "model", "--json"});
  EXPECT_EQ(json.output.rfind("{\n  \"release\": null,\n  \"passed\": true,", 0), 0U);
}

TEST(Conformance, ListsCasesWithWhatDiffersBetweenKernels) {
  const CtlOutcome list = Call({"--list", "--filter", "slot/far*"});
  EXPECT_EQ(list.output,
            "slot/far_binding             EINVAL from Linux 7.2 on; before, the end overflowed and "
            "the slot was made\n");
}

TEST(Conformance, HelpNamesEveryOption) {
  const CtlOutcome help = Call({"--help"});
  EXPECT_EQ(help.exit_status, EXIT_SUCCESS);
  const CtlOutcome version = Call({"--version"});
  EXPECT_EQ(version.output.rfind("holdfast-conformance version ", 0), 0U);
  const ProgramHelp program = ConformanceHelp();
  const std::string page = FormatManPage(program, "1.2.3");
  for (const HelpEntry& entry : program.sections.at(0).entries) {
    const std::string option = entry.syntax.substr(0, entry.syntax.find(' '));
    EXPECT_NE(help.output.find(option), std::string::npos) << option;
  }
  EXPECT_EQ(page.rfind(".TH HOLDFAST\\-CONFORMANCE 1", 0), 0U) << page.substr(0, 60);
}

}  // namespace
}  // namespace holdfast::apps
