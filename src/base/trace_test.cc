// SPDX-License-Identifier: Apache-2.0
#include "base/trace.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>

#include "base/log.h"

namespace holdfast {
namespace {

class TraceTest : public ::testing::Test {
 protected:
  void TearDown() override { trace::Enable("-*"); }
};

TEST_F(TraceTest, PatternsMatchAsInAShell) {
  const struct {
    const char* pattern;
    const char* name;
    bool matches;
  } cases[] = {
      {"kvm_run_exit", "kvm_run_exit", true},
      {"kvm_*", "kvm_run_exit", true},
      {"*exit", "kvm_run_exit", true},
      {"k*run*t", "kvm_run_exit", true},
      {"kvm_run_exi?", "kvm_run_exit", true},
      {"*", "", true},
      {"?", "", false},
      {"kvm", "kvm_run_exit", false},
      {"", "x", false},
      {"*x", "kvm_run_exit", false},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(trace::Matches(c.pattern, c.name), c.matches) << c.pattern << " " << c.name;
  }
}

TEST_F(TraceTest, TheRegistryIsSortedAndItsNamesAreUnique) {
  const auto events = trace::Events();
  ASSERT_FALSE(events.empty());
  for (std::size_t i = 1; i < events.size(); ++i) {
    EXPECT_LT(events[i - 1]->name(), events[i]->name());
  }
}

TEST_F(TraceTest, AnEventThatIsOffDoesNotEvaluateItsArguments) {
  int evaluated = 0;
  auto count = [&] { return ++evaluated; };
  HF_TRACE(kvm_run_exit, count(), 2);
  EXPECT_EQ(evaluated, 0);
}

TEST_F(TraceTest, ALineIsNameAndText) {
  EXPECT_EQ(trace::Enable("kvm_run_*"), 1);
  EXPECT_EQ(trace::Enable("qemu_system_powerdown_request"), 1);
  EXPECT_EQ(trace::Enable("nosuch"), 0);
  ::testing::internal::CaptureStderr();
  HF_TRACE(kvm_run_exit, 1, 2);
  HF_TRACE(qemu_system_powerdown_request);
  HF_TRACE(runstate_set, 0, "a", 1, "b");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "kvm_run_exit cpu_index 1, reason 2\nqemu_system_powerdown_request\n");
}

TEST_F(TraceTest, AnEventsFileTurnsOnWhatItListsAndWarnsAboutTheRest) {
  const std::string path = ::testing::TempDir() + "/trace_test_events";
  std::ofstream(path) << "# comment\n\nkvm_run_exit\nnosuch\n";
  ::testing::internal::CaptureStderr();
  ASSERT_TRUE(trace::EnableFromFile(path));
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "holdfast: warning: trace event 'nosuch' does not exist\n");
  EXPECT_TRUE(trace::events::kvm_run_exit.enabled());
  EXPECT_FALSE(trace::EnableFromFile("/nonexistent"));
  std::remove(path.c_str());
}

TEST_F(TraceTest, FindsByNameOrPattern) {
  const auto one = trace::Find("cpu_in");
  ASSERT_EQ(one.size(), 1U);
  EXPECT_EQ(one[0]->name(), "cpu_in");
  EXPECT_EQ(trace::Find("cpu_*").size(), 2U);
  EXPECT_EQ(trace::Find("*").size(), trace::Events().size());
  EXPECT_TRUE(trace::Find("nosuch").empty());
  EXPECT_TRUE(trace::IsPattern("kvm_*") && trace::IsPattern("?"));
  EXPECT_FALSE(trace::IsPattern("kvm_run_exit"));
}

}  // namespace
}  // namespace holdfast
