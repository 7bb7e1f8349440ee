// SPDX-License-Identifier: Apache-2.0
// Whatever of a migration ends at whatever moment: never do both sides run the guest, never does it
// go on with wrong memory, and it is lost only with the monitor that had it.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "system/native_migration.h"
#include "system/relay.h"

namespace holdfast::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

enum class Fate { kSourceDies, kTargetDies, kCableBreaks };

struct Case {
  const char* name;
  Arguments how;
  Fate fate;
};

class NativeMigrationFailure : public NativeMigration, public ::testing::WithParamInterface<Case> {
 protected:
  // What has become of a monitor's migration: a status that stays, or "ended" of the monitor.
  static std::string Settled(const std::string& socket, MonitorProcess& monitor) {
    constexpr int kTries = 2000;
    std::string answer;
    for (int i = 0; i < kTries && monitor.running(); ++i) {
      answer = Ctl({"qmp", socket, "query-migrate"}).words;
      for (const char* const word : {"completed", "failed", "postcopy-paused"}) {
        if (answer.find(fmt::format("\"status\": \"{}\"", word)) != std::string::npos) return word;
      }
    }
    return monitor.running() ? answer : "ended";
  }
  // Bytes of a migration that nothing happens to.
  std::uint64_t Measure(const Arguments& how) {
    MonitorProcess source(Guest("a"));
    MonitorProcess target(Guest("b", {"-incoming", "unix:" + Path("far")}));
    WaitUntilItListens("far");
    const Relay relay(Path("wire"), Path("far"));
    EXPECT_TRUE(source.WaitFor("round 2 ok"));
    Move("a", how);
    ExpectRight(target);
    return relay.passed();
  }
  // The source lives; the target may have ended, or have the guest.
  void JudgeSource(MonitorProcess& source, MonitorProcess& target, bool target_died) {
    const std::string here = Settled(Path("a"), source);
    const std::string there = Settled(Path("b"), target);
    SCOPED_TRACE(fmt::format("source: {}, target: {}", here, there));
    if (Qmp("a", {"query-status"}).find("\"running\": true") != std::string::npos) {
      EXPECT_EQ(here, "failed");
      EXPECT_EQ(there, "ended") << target.Describe();
      return ExpectRight(source);
    }
    if (here == "postcopy-paused" && there == "postcopy-paused") {
      EXPECT_EQ(Qmp("a", {"migrate", "uri=unix:" + Path("far"), "resume=true"}), "{}\n");
      return ExpectRight(target);
    }
    if (there != "ended") {
      ExpectRight(target);
      return ExpectStands("a");
    }
    // The guest ended with the monitor that had it.
    if (target_died && here == "completed") return;
    EXPECT_NE(here, "completed") << target.Describe();
    // It may have run there, so it does not run here, but can be told to; unless some of its memory
    // is known to have been written there.
    if (here == "postcopy-paused") {
      const std::string said = Qmp("a", {"migrate_cancel"});
      if (said != "{}\n") {
        EXPECT_TRUE(target_died) << said;
        EXPECT_THAT(said, HasSubstr("cannot be cancelled any more"));
        return ExpectStands("a");
      }
      EXPECT_EQ(Settled(Path("a"), source), "failed");
    }
    EXPECT_EQ(Qmp("a", {"cont"}), "{}\n");
    ExpectRight(source);
  }
  // The source is dead: the target has what it needs, or says so.
  void JudgeTarget(MonitorProcess& target) {
    const std::string there = Settled(Path("b"), target);
    SCOPED_TRACE(there);
    if (there == "completed") return ExpectRight(target);
    EXPECT_THAT(target.output(), Not(HasSubstr("WRONG")));
    if (there != "ended") {
      EXPECT_EQ(there, "postcopy-paused");
      return;
    }
    const auto exit = target.WaitForExit();
    ASSERT_TRUE(exit) << target.Describe();
    EXPECT_EQ(exit->status, 1) << target.Describe();
    EXPECT_THAT(target.output(), Not(HasSubstr(" ok"))) << target.Describe();
  }
};

TEST_P(NativeMigrationFailure, LeavesOneGuestWithAllItsMemory) {
  const auto& [name, how, fate] = GetParam();
  const std::uint64_t total = Measure(how);
  const std::uint64_t spread = std::getenv("HOLDFAST_TEST_LONG") == nullptr ? 1 : 50;
  std::vector<std::uint64_t> points;
  for (std::uint64_t i = 0; i < spread; ++i) points.push_back(total * (2 * i + 1) / (2 * spread));
  // The guest changes sides in the last few of them.
  for (std::uint64_t i = 0; i < spread; ++i) points.push_back(total - (i + 1) * 64);
  for (const std::uint64_t point : points) {
    SCOPED_TRACE(fmt::format("after {} of {} bytes", point, total));
    for (const char* const socket : {"wire", "far"}) std::filesystem::remove(Path(socket));
    MonitorProcess source(Guest("a"));
    MonitorProcess target(Guest("b", {"-incoming", "unix:" + Path("far")}));
    WaitUntilItListens("far");
    const pid_t victim = fate == Fate::kSourceDies   ? source.pid()
                         : fate == Fate::kTargetDies ? target.pid()
                                                     : 0;
    const Relay relay(Path("wire"), Path("far"), {.after = point, .also = [victim] {
                                                    if (victim != 0) ::kill(victim, SIGKILL);
                                                  }});
    ASSERT_TEXT(source, "round 2 ok");
    (void)Ctl(Arguments{"migrate", Path("a"), Uri()} + how);
    if (fate == Fate::kSourceDies && relay.passed() == point) {
      ASSERT_TRUE(source.WaitForExit());
      JudgeTarget(target);
    } else {
      JudgeSource(source, target, fate == Fate::kTargetDies);
    }
    if (HasFailure()) return;
  }
}

std::vector<Case> Cases() {
  const std::pair<const char*, Arguments> kinds[] = {
      {"passes", {}}, {"channels", {"--channels", "4", "--zstd"}}, {"postcopy", {"--postcopy"}}};
  std::vector<Case> cases;
  for (const auto& [name, how] : kinds) {
    for (const Fate fate : {Fate::kSourceDies, Fate::kTargetDies, Fate::kCableBreaks})
      cases.push_back({name, how, fate});
  }
  return cases;
}

std::string NameOf(const ::testing::TestParamInfo<Case>& of) {
  const char* const fates[] = {"source_dies", "target_dies", "cable_breaks"};
  return fmt::format("{}_{}", of.param.name, fates[static_cast<int>(of.param.fate)]);
}

INSTANTIATE_TEST_SUITE_P(Any, NativeMigrationFailure, ::testing::ValuesIn(Cases()), NameOf);

}  // namespace
}  // namespace holdfast::test
