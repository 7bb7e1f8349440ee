// SPDX-License-Identifier: Apache-2.0
#include "apps/ctl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <vector>

namespace holdfast::apps {
namespace {

using ::testing::HasSubstr;

CtlOutcome RunLine(const std::vector<const char*>& arguments) {
  return RunCtl(arguments);
}

kvm::Capabilities Good() {
  kvm::Capabilities capabilities;
  capabilities.guest_memfd = true;
  capabilities.guest_memfd_flags = 3;
  capabilities.guest_memfd_mapping_works = true;
  capabilities.user_memory2 = true;
  capabilities.irqchip = true;
  capabilities.immediate_exit = true;
  capabilities.kernel_mode_guests = true;
  return capabilities;
}

TEST(CtlTest, WrongCommandLinesSaySoAndExitWith1) {
  const struct {
    std::vector<const char*> arguments;
    const char* error;
  } cases[] = {
      {{}, "holdfastctl: no command given. holdfastctl help lists the commands.\n"},
      {{"prob"}, "holdfastctl: invalid command 'prob'. Did you mean probe?\n"},
      {{"probe", "x"},
       "holdfastctl: probe: invalid argument 'x'. Write holdfastctl probe [--json] [--device "
       "PATH].\n"},
      {{"probe", "--device"},
       "holdfastctl: probe: --device requires an argument. Write --device /dev/kvm.\n"},
      {{"version", "x"}, "holdfastctl: version: invalid argument 'x'. It takes none.\n"},
  };
  for (const auto& c : cases) {
    const CtlOutcome outcome = RunLine(c.arguments);
    EXPECT_EQ(outcome.error, c.error);
    EXPECT_EQ(outcome.output, "");
    EXPECT_EQ(outcome.exit_status, 1);
  }
}

TEST(CtlTest, HelpAndVersionGoToStdout) {
  EXPECT_THAT(RunLine({"help"}).output, HasSubstr("probe [--json] [--device path]"));
  EXPECT_EQ(RunLine({"--help"}).output, RunLine({"help"}).output);
  EXPECT_THAT(RunLine({"--version"}).output, HasSubstr("holdfastctl version "));
  EXPECT_EQ(RunLine({"--version"}).exit_status, 0);
}

TEST(CtlTest, ACommandTellsHowItIsUsed) {
  for (const char* word : {"--help", "-h"}) {
    const CtlOutcome outcome = RunLine({"map", word});
    EXPECT_TRUE(outcome.output.starts_with("usage: holdfastctl map socket [--png file]"));
    EXPECT_THAT(outcome.output, HasSubstr("draws guest memory"));
    EXPECT_EQ(outcome.exit_status, 0);
  }
}

TEST(CtlTest, AHostWithoutKvmIsReportedWith3) {
  const CtlOutcome outcome = RunLine({"probe", "--device", "/nonexistent/kvm"});
  EXPECT_EQ(outcome.exit_status, 3);
  EXPECT_THAT(outcome.error, HasSubstr("/nonexistent/kvm"));
  const CtlOutcome json = RunLine({"probe", "--json", "--device=/nonexistent/kvm"});
  EXPECT_EQ(json.exit_status, 3);
  const auto report = nlohmann::json::parse(json.output);
  EXPECT_EQ(report["can_run_on_guest_memfd"], false);
  EXPECT_THAT(report["summary"].get<std::string>(), HasSubstr("/nonexistent/kvm"));
}

TEST(CtlTest, TheTableFitsAHundredColumnsAndHasEveryFeature) {
  const kvm::Capabilities capabilities = Good();
  const std::string text = FormatProbe(capabilities, "/dev/kvm");
  EXPECT_THAT(text, HasSubstr("\nHoldfast can run guests on guest_memfd here.\n"));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("Holdfast")) {
      EXPECT_LE(line.size(), 100U) << line;
    }
  }
  const auto report = nlohmann::json::parse(FormatProbeJson(capabilities, "/dev/kvm"));
  EXPECT_EQ(report["features"].size(), kvm::Describe(capabilities).size());
  EXPECT_EQ(report["can_run_on_guest_memfd"], true);
}

TEST(CtlTest, TheSummarySaysWhatIsMissing) {
  kvm::Capabilities capabilities = Good();
  capabilities.kernel_mode_guests = false;
  EXPECT_THAT(FormatProbe(capabilities, "/dev/kvm"), HasSubstr("stock Linux does not boot"));
  capabilities.guest_memfd = false;
  capabilities.guest_memfd_mapping_works = false;
  EXPECT_THAT(FormatProbe(capabilities, "/dev/kvm"),
              HasSubstr("Holdfast cannot run guests on guest_memfd here"));
}

}  // namespace
}  // namespace holdfast::apps
