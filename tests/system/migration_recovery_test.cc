// SPDX-License-Identifier: Apache-2.0
// A guest in post-copy, whose memory is in two monitors, loses the line between them; and gets it
// back. Its pattern shows that no page was lost.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>

#include "system/native_migration.h"
#include "system/relay.h"

namespace holdfast::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Bytes a second of what no vCPU asks for: nothing comes of it while a line breaks.
constexpr int kMiB = 1024 * 1024;

class NativeMigrationRecovery : public NativeMigration {
 protected:
  // From "a" to `uri`, in post-copy before the first pass over memory is complete.
  void LeaveEarly(const std::string& uri) const {
    Enable("a", {"postcopy-ram"});
    EXPECT_EQ(Qmp("a", {"migrate-set-parameters", "max-bandwidth=1048576"}), "{}\n");
    EXPECT_EQ(Qmp("a", {"migrate", "uri=" + uri}), "{}\n");
    EXPECT_EQ(Qmp("a", {"migrate-start-postcopy"}), "{}\n");
  }
  // The guest stands at the destination too, and hardly anything comes that no vCPU asks for: it
  // is under way until LetItRun().
  Arguments Standing(const std::string& name, const Arguments& rest) const {
    return Guest(name, rest + Arguments{"-S"});
  }
  void GoSlowly(int bytes = 4096) const {
    const std::string speed = fmt::format("max-postcopy-bandwidth={}", bytes);
    EXPECT_EQ(Qmp("a", {"migrate-set-parameters", speed}), "{}\n");
  }
  void LetItRun() const { EXPECT_EQ(Qmp("b", {"cont"}), "{}\n"); }
  void ExpectBoth(std::string_view status) const {
    for (const char* const name : {"a", "b"}) {
      EXPECT_THAT(WaitForStatus(name, {status}), HasSubstr(fmt::format("\"{}\"", status))) << name;
    }
  }
  std::string Resume(const std::string& uri) const {
    return Qmp("a", {"migrate", "uri=" + uri, "resume=true"});
  }
};

TEST_F(NativeMigrationRecovery, ALineThatBreaksThreeTimesCostsNoPage) {
  for (const bool urgent : {false, true}) {
    SCOPED_TRACE(urgent ? "with an urgent connection" : "with one connection");
    MonitorProcess source(Guest("a"));
    ASSERT_TEXT(source, "round 2 ok");
    MonitorProcess target(Guest("b", {"-incoming", "unix:" + Path("far")}));
    WaitUntilItListens("far");
    Relay relay(Path("wire"), Path("far"));
    relay.CutAfter(3);
    if (urgent) Enable("a", {"postcopy-ram", "postcopy-preempt"});
    GoSlowly(kMiB);
    LeaveEarly(Uri());
    for (int i = 0; i < 3; ++i) {
      ExpectBoth("postcopy-paused");
      EXPECT_THAT(Qmp("b", {"query-migrate"}), HasSubstr("error-desc"));
      ExpectStands("a");
      if (i < 2) relay.CutAfter(3);
      // The destination listens where it did; it need not be told.
      EXPECT_EQ(Resume(Uri()), "{}\n");
    }
    ExpectRight(target);
    ExpectBoth("completed");
    EXPECT_THAT(Qmp("a", {"query-status"}), HasSubstr("postmigrate"));
    std::filesystem::remove(Path("wire"));
  }
}

TEST_F(NativeMigrationRecovery, EitherSidePausesAndTheDestinationMayTakeAnotherAddress) {
  MonitorProcess source(Guest("a"));
  ASSERT_TEXT(source, "round 2 ok");
  MonitorProcess target(Standing("b", {"-incoming", Uri()}));
  WaitUntilItListens();
  GoSlowly();
  LeaveEarly(Uri());
  ExpectBoth("postcopy-active");
  int number = 0;
  for (const char* const side : {"a", "b", "a"}) {
    SCOPED_TRACE(side);
    EXPECT_EQ(Qmp(side, {"migrate-pause"}), "{}\n");
    ExpectBoth("postcopy-paused");
    EXPECT_THAT(Qmp(side, {"query-migrate"}), HasSubstr("it was paused with migrate-pause"));
    // It goes as far as it can.
    if (number == 2) LetItRun();
    const std::string next = fmt::format("unix:{}", Path(fmt::format("wire{}", ++number)));
    EXPECT_EQ(Qmp("b", {"migrate-recover", "uri=" + next}), "{}\n");
    EXPECT_THAT(Qmp("b", {"query-migrate"}), HasSubstr(fmt::format("wire{}", number)));
    EXPECT_EQ(Resume(next), "{}\n");
    if (number < 3) ExpectBoth("postcopy-active");
  }
  ExpectRight(target);
}

// As libvirt does it.
TEST_F(NativeMigrationRecovery, TheNewConnectionCanBeOneThatWasPassed) {
  MonitorProcess source(Guest("a"));
  ASSERT_TEXT(source, "round 2 ok");
  MonitorProcess target(Standing("b", {"-incoming", Uri()}));
  WaitUntilItListens();
  GoSlowly();
  LeaveEarly(Uri());
  ExpectBoth("postcopy-active");
  for (int round = 0; round < 2; ++round) {
    SCOPED_TRACE(round);
    EXPECT_EQ(Qmp("a", {"migrate-pause"}), "{}\n");
    ExpectBoth("postcopy-paused");
    std::array<int, 2> ends{};
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
    for (const int i : {0, 1}) {
      const UniqueFd end(ends.at(static_cast<std::size_t>(i)));
      EXPECT_THAT(PassFd(i == 0 ? "a" : "b", end), HasSubstr("return")) << i;
    }
    EXPECT_EQ(Qmp("b", {"migrate-recover", "uri=fd:wire"}), "{}\n");
    EXPECT_EQ(Resume("fd:wire"), "{}\n");
    ExpectBoth("postcopy-active");
  }
  LetItRun();
  ExpectRight(target);
}

TEST_F(NativeMigrationRecovery, WhoeverIsNotTheSourceIsLetGoAndItCanBeTriedAgain) {
  MonitorProcess source(Guest("a"));
  ASSERT_TEXT(source, "round 2 ok");
  MonitorProcess target(Standing("b", {"-incoming", Uri()}));
  MonitorProcess other(Guest("c"));
  ASSERT_TEXT(other, "round 2 ok");
  WaitUntilItListens();
  GoSlowly();
  LeaveEarly(Uri());
  ExpectBoth("postcopy-active");
  EXPECT_EQ(Qmp("a", {"migrate-pause"}), "{}\n");
  ExpectBoth("postcopy-paused");

  // A control client, and another guest that wants to come.
  EXPECT_NE(Ctl({"qmp", Path("wire"), "query-status"}).status, 0);
  ASSERT_TRUE(target.WaitForError("was let go"));
  EXPECT_EQ(Ctl({"migrate", Path("c"), Uri()}).status, 1);
  ASSERT_TRUE(target.WaitForError("another migration"));
  ExpectRight(other);
  // Nobody is there; and a monitor that waits for something else.
  EXPECT_EQ(Resume("unix:" + Path("nowhere")), "{}\n");
  EXPECT_THAT(WaitForStatus("a", {"postcopy-paused"}), HasSubstr("Failed to connect"));
  MonitorProcess third(Guest("d", {"-incoming", "unix:" + Path("elsewhere")}));
  WaitUntilItListens("elsewhere");
  EXPECT_EQ(Resume("unix:" + Path("elsewhere")), "{}\n");
  EXPECT_THAT(WaitForStatus("a", {"postcopy-paused"}), HasSubstr("closed the connection"));
  ExpectBoth("postcopy-paused");

  EXPECT_EQ(Resume(Uri()), "{}\n");
  ExpectBoth("postcopy-active");
  LetItRun();
  ExpectRight(target);
}

TEST_F(NativeMigrationRecovery, WithKeysTheNewConnectionsAreEncryptedToo) {
  std::ofstream(Path("keys.psk")) << "holdfast:00112233445566778899aabbccddeeff\n";
  const auto keys = [this](std::string_view endpoint, std::string_view rest) {
    return Arguments{"-object", fmt::format("tls-creds-psk,id=k,dir={},endpoint={}{}", Path("."),
                                            endpoint, rest)};
  };
  MonitorProcess source(Guest("a", keys("client", ",username=holdfast")));
  ASSERT_TEXT(source, "round 2 ok");
  MonitorProcess target(Standing("b", keys("server", "") + Arguments{"-incoming", "defer"}));
  for (const char* const name : {"a", "b"})
    EXPECT_EQ(Qmp(name, {"migrate-set-parameters", "tls-creds=k"}), "{}\n");
  EXPECT_EQ(Qmp("b", {"migrate-incoming", "uri=" + Uri()}), "{}\n");
  Enable("a", {"postcopy-ram", "postcopy-preempt", "multifd"});
  GoSlowly();
  LeaveEarly(Uri());
  ExpectBoth("postcopy-active");
  EXPECT_EQ(Qmp("b", {"migrate-pause"}), "{}\n");
  ExpectBoth("postcopy-paused");
  // Without keys nobody comes in.
  MonitorProcess other(Guest("c"));
  ASSERT_TEXT(other, "round 2 ok");
  EXPECT_EQ(Ctl({"migrate", Path("c"), Uri()}).status, 1);
  ASSERT_TRUE(target.WaitForError("was let go")) << target.Describe();
  EXPECT_EQ(Resume(Uri()), "{}\n");
  ExpectBoth("postcopy-active");
  LetItRun();
  ExpectRight(target);
}

TEST_F(NativeMigrationRecovery, CommandsThatMakeNoSenseAreRefused) {
  MonitorProcess source(Guest("a"));
  ASSERT_TEXT(source, "round 2 ok");
  MonitorProcess target(Standing("b", {"-incoming", Uri()}));
  WaitUntilItListens();
  const char* const kNoPause = "migrate-pause is currently only supported during postcopy-active";
  const char* const kNoResume = "Cannot resume if there is no paused migration";
  const char* const kNoRecover = "Migrate recover can only be run when postcopy is paused.";
  for (const char* const name : {"a", "b"}) {
    EXPECT_THAT(Qmp(name, {"migrate-pause"}), HasSubstr(kNoPause));
    EXPECT_THAT(Qmp(name, {"migrate", "uri=unix:x", "resume=true"}), HasSubstr(kNoResume));
    EXPECT_THAT(Qmp(name, {"migrate-recover", "uri=unix:x"}), HasSubstr(kNoRecover));
  }
  GoSlowly();
  LeaveEarly(Uri());
  ExpectBoth("postcopy-active");
  EXPECT_THAT(Resume(Uri()), HasSubstr(kNoResume));
  EXPECT_THAT(Qmp("b", {"migrate-recover", "uri=unix:x"}), HasSubstr(kNoRecover));
  EXPECT_EQ(Qmp("b", {"migrate-pause"}), "{}\n");
  ExpectBoth("postcopy-paused");
  for (const char* const name : {"a", "b"})
    EXPECT_THAT(Qmp(name, {"migrate-pause"}), HasSubstr(kNoPause));
  EXPECT_THAT(Qmp("a", {"migrate_cancel"}), HasSubstr("cannot be cancelled any more"));
  EXPECT_THAT(Qmp("a", {"migrate", "uri=" + Uri()}), HasSubstr("migration process in progress"));
  EXPECT_THAT(Qmp("a", {"cont"}), HasSubstr("it is being migrated"));
  EXPECT_THAT(Qmp("b", {"migrate-recover", "uri=file:" + Path("x")}),
              HasSubstr("cannot be waited"));
  // Both can be ended.
  EXPECT_EQ(Qmp("b", {"quit"}), "{}\n");
  EXPECT_EQ(Qmp("a", {"quit"}), "{}\n");
  ASSERT_TRUE(source.WaitForExit()) << source.Describe();
  ASSERT_TRUE(target.WaitForExit()) << target.Describe();
}

TEST_F(NativeMigrationRecovery, HoldfastctlSaysHowToGoOn) {
  MonitorProcess source(Guest("a"));
  ASSERT_TEXT(source, "round 2 ok");
  MonitorProcess target(Guest("b", {"-incoming", "unix:" + Path("far")}));
  WaitUntilItListens("far");
  Relay relay(Path("wire"), Path("far"));
  relay.CutAfter(3);
  GoSlowly(kMiB);
  const Outcome outcome = Ctl({"migrate", Path("a"), Uri(), "--postcopy", "--bandwidth", "2M"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(outcome.words, HasSubstr("the migration is paused: unix:"));
  EXPECT_THAT(outcome.words, HasSubstr("migrate-recover uri="));
  EXPECT_THAT(outcome.words, HasSubstr(fmt::format("holdfastctl qmp {} migrate uri={} resume=true",
                                                   Path("a"), Uri())));
  EXPECT_THAT(outcome.words, Not(HasSubstr("runs on where it was")));
  EXPECT_EQ(Resume(Uri()), "{}\n");
  ExpectRight(target);
  ExpectBoth("completed");
}

// Nobody closes a connection; the destination waits for pages that do not come.
TEST_F(NativeMigrationRecovery, ALineThatStallsIsNoticed) {
  if (std::getenv("HOLDFAST_TEST_LONG") == nullptr) GTEST_SKIP() << "takes a minute";
  MonitorProcess source(Guest("a"));
  ASSERT_TEXT(source, "round 2 ok");
  MonitorProcess target(Guest("b", {"-incoming", "unix:" + Path("far")}));
  WaitUntilItListens("far");
  Relay relay(Path("wire"), Path("far"));
  relay.StallAfter(3);
  GoSlowly(kMiB);
  LeaveEarly(Uri());
  ASSERT_TRUE(target.WaitForError("has not answered for 30 s", 2 * MonitorProcess::kLong))
      << target.Describe();
  EXPECT_THAT(WaitForStatus("b", {"postcopy-paused"}), HasSubstr("postcopy-paused"));
  // The source has nothing to wait for, and is told.
  EXPECT_EQ(Qmp("a", {"migrate-pause"}), "{}\n");
  ExpectBoth("postcopy-paused");
  EXPECT_EQ(Resume("unix:" + Path("far")), "{}\n");
  ExpectRight(target);
  ExpectBoth("completed");
}

}  // namespace
}  // namespace holdfast::test
