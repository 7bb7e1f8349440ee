// SPDX-License-Identifier: Apache-2.0
#include "apps/ctl_migrate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "apps/ctl_arguments.h"

namespace holdfast::apps {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::HasSubstr;
using ::testing::Not;

std::string Progress(const char* text) {
  return MigrationProgress(Json::parse(text));
}

TEST(CtlMigrate, TheLineSaysWhenItEnds) {
  EXPECT_EQ(Progress(R"({"status": "active", "ram": {"remaining": 1073741824, "total": 4294967296,
      "dirty-sync-count": 1, "pages-per-second": 131072, "dirty-pages-rate": 0}})"),
            "active, pass 2: 1 GiB of 4 GiB left, 512 MiB/s, about 2 s");
  // What the guest writes comes off the speed.
  EXPECT_EQ(
      Progress(R"({"status": "active", "ram": {"remaining": 1073741824, "total": 4294967296,
      "dirty-sync-count": 1, "pages-per-second": 131072, "dirty-pages-rate": 98304}})"),
      "active, pass 2: 1 GiB of 4 GiB left, 512 MiB/s, the guest writes 384 MiB/s, about 8 s");
}

TEST(CtlMigrate, TheLineSaysWhyThereIsNoEnd) {
  const char* const kFast = R"({"status": "active", "ram": {"remaining": 1, "total": 2,
      "pages-per-second": 1000, "dirty-pages-rate": 1000}})";
  EXPECT_THAT(Progress(kFast), HasSubstr("it does not converge, as the guest writes 3.91 MiB/s"));
  EXPECT_THAT(Progress(kFast), HasSubstr("--postcopy help"));
  EXPECT_THAT(
      Progress(R"({"status": "active", "cpu-throttle-percentage": 30, "ram": {"remaining": 1,
      "total": 2, "pages-per-second": 1000, "dirty-pages-rate": 1000}})"),
      HasSubstr("not converge yet, as the guest, slowed down by 30 %, writes 3.91 MiB/s"));
  EXPECT_THAT(Progress(R"({"status": "postcopy-active", "ram": {"remaining": 4096000, "total": 2,
      "pages-per-second": 1000, "dirty-pages-rate": 1000}})"),
              HasSubstr("about 1 s"));
}

// A monitor is not trusted with what it sends.
TEST(CtlMigrate, WhateverAMonitorSaysIsShown) {
  EXPECT_EQ(Progress("{}"), "none");
  EXPECT_EQ(Progress(R"({"status": 5, "ram": 7})"), "none");
  EXPECT_THAT(Progress(R"({"status": "active", "ram": {"remaining": -5, "total": "x"}})"),
              HasSubstr("0 B of 0 B left"));
}

TEST(CtlMigrate, TheSummaryHasTimeAndDowntime) {
  EXPECT_EQ(MigrationSummary(Json::parse(R"({"total-time": 1540, "downtime": 12,
      "ram": {"transferred": 1048576, "dirty-sync-count": 3}})")),
            "moved in 1.5 s, the guest stood 12 ms; 1 MiB sent in 3 passes");
}

TEST(CtlMigrate, WrongWordsAreRefusedBeforeAnybodyIsAsked) {
  const struct {
    std::vector<const char*> words;
    const char* says;
  } cases[] = {
      {{}, "it takes a guest and where it goes"},
      {{"vm.qmp"}, "it takes a guest and where it goes"},
      {{"a", "b", "c"}, "'c'"},
      {{"a", "b", "--channels", "0"}, "--channels"},
      {{"a", "b", "--channels", "256"}, "--channels"},
      {{"a", "b", "--bandwidth", "fast"}, "--bandwidth fast is no size"},
      {{"a", "b", "--downtime-limit", "2000001"}, "--downtime-limit"},
      {{"a", "b", "--quickly"}, "--quickly"},
  };
  for (const auto& test : cases) {
    const CtlOutcome outcome = RunCtlMigrate(test.words);
    EXPECT_NE(outcome.exit_status, 0) << test.says;
    EXPECT_THAT(outcome.error, HasSubstr(test.says));
    EXPECT_THAT(outcome.error, Not(HasSubstr("connect")));
  }
}

}  // namespace
}  // namespace holdfast::apps
