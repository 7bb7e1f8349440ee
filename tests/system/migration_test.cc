// SPDX-License-Identifier: Apache-2.0
// A guest that writes all its memory over and over, and checks what it finds there, moves from one
// monitor to another, while either of them, the network or a stranger does what it should not.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/unique_fd.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string_view>

#include "system/native_migration.h"

namespace holdfast::test {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using std::literals::operator""sv;

// Lines of the command line that give memory, beside the default.
const Arguments kBound{"-object", "memory-backend-guest-memfd,id=m,size=64M,bind=on", "-machine",
                       "memory-backend=m"};
const Arguments kMemfd{"-object", "memory-backend-memfd,id=m,size=64M", "-machine",
                       "memory-backend=m"};
const Arguments kRam{"-object", "memory-backend-ram,id=m,size=64M", "-machine", "memory-backend=m"};

struct Kind {
  const char* name;
  Arguments how;
};
const Kind kKinds[] = {
    {"passes", {}},
    {"channels", {"--channels", "4", "--zstd"}},
    {"postcopy", {"--postcopy"}},
};

TEST_F(NativeMigration, AGuestGoesOnInTheOtherMonitorWithWhateverMemoryThatHas) {
  const std::pair<Arguments, Arguments> pairs[] = {{{}, {}},       {{}, kMemfd}, {kMemfd, kBound},
                                                   {kBound, kRam}, {kRam, {}},   {kBound, kBound}};
  for (const Kind& kind : kKinds) {
    for (const auto& [here, there] : pairs) {
      SCOPED_TRACE(
          fmt::format("{} from {} to {}", kind.name, fmt::join(here, " "), fmt::join(there, " ")));
      // Memory has the same name on both sides, and the default's is another than an object's.
      const bool named = !here.empty();
      if (named == there.empty()) continue;
      MonitorProcess source(Guest("a", here));
      ASSERT_TEXT(source, "round 2 ok");
      MonitorProcess target(Waiting("b", there));
      Move("a", kind.how);
      ExpectRight(target);
      EXPECT_THAT(target.output(), Not(HasSubstr("start"))) << target.Describe();
      ExpectStands("a");
      EXPECT_THAT(Qmp("a", {"query-status"}), HasSubstr("postmigrate"));
    }
  }
}

TEST_F(NativeMigration, AnUrgentConnectionBringsWhatTheGuestWaitsFor) {
  MonitorProcess source(Guest("a"));
  ASSERT_TEXT(source, "round 2 ok");
  MonitorProcess target(Guest("b", {"-incoming", "defer"}));
  for (const char* const name : {"a", "b"}) Enable(name, {"postcopy-ram", "postcopy-preempt"});
  // Slow enough that the passes do not end before it is asked for, and then nearly nothing comes
  // unasked.
  EXPECT_EQ(Qmp("a", {"migrate-set-parameters", "max-bandwidth=262144"}), "{}\n");
  EXPECT_EQ(Qmp("a", {"migrate-set-parameters", "max-postcopy-bandwidth=4096"}), "{}\n");
  EXPECT_EQ(Qmp("b", {"migrate-incoming", "uri=" + Uri()}), "{}\n");
  EXPECT_EQ(Qmp("a", {"migrate", "uri=" + Uri()}), "{}\n");
  EXPECT_EQ(Qmp("a", {"migrate-start-postcopy"}), "{}\n");
  ExpectRight(target);
  EXPECT_THAT(Qmp("a", {"query-migrate"}), Not(HasSubstr("\"postcopy-requests\": 0,")));
}

TEST_F(NativeMigration, AGuestMovesBackAndForth) {
  const bool all = std::getenv("HOLDFAST_TEST_LONG") != nullptr;
  const int rounds = all ? 200 : 6;
  auto here = std::make_unique<MonitorProcess>(Guest("0"));
  ASSERT_TEXT(*here, "round 2 ok");
  for (int i = 0; i < rounds; ++i) {
    SCOPED_TRACE(i);
    auto there = std::make_unique<MonitorProcess>(Waiting(std::to_string(i + 1)));
    Move(std::to_string(i), kKinds[static_cast<std::size_t>(i) % std::size(kKinds)].how);
    ExpectRight(*there);
    if (HasFatalFailure()) return;
    here = std::move(there);
  }
}

TEST_F(NativeMigration, WithKeysBothSidesKnowItIsEncrypted) {
  std::ofstream(Path("keys.psk")) << "holdfast:00112233445566778899aabbccddeeff\n";
  const auto keys = [this](std::string_view endpoint, std::string_view rest) {
    return Arguments{"-object", fmt::format("tls-creds-psk,id=k,dir={},endpoint={}{}", Path("."),
                                            endpoint, rest)};
  };
  MonitorProcess source(Guest("a", keys("client", ",username=holdfast")));
  ASSERT_TEXT(source, "round 2 ok");
  MonitorProcess target(Guest("b", keys("server", "") + Arguments{"-incoming", "defer"}));
  EXPECT_EQ(Qmp("b", {"migrate-set-parameters", "tls-creds=k"}), "{}\n");
  EXPECT_EQ(Qmp("b", {"migrate-incoming", "uri=" + Uri()}), "{}\n");
  // Without them nothing comes of it, and nobody is the worse for it.
  EXPECT_NE(Ctl({"migrate", Path("a"), Uri()}).status, 0);
  ExpectRight(source);
  Move("a", {"--tls", "k", "--channels", "2"});
  ExpectRight(target);
}

TEST_F(NativeMigration, AMachineOfAnotherShapeIsRefusedBeforeItsMemoryIsSent) {
  const struct {
    Arguments there;
    const char* says;
  } kCases[] = {
      {{"-m", "48M"}, "has 64 MiB and that of this one 48 MiB"},
      {{"-smp", "2"}, "vcpu/1"},
      {{"-device", "virtio-rng-pci"}, "virtio-rng-pci"},
  };
  for (const auto& [there, says] : kCases) {
    SCOPED_TRACE(says);
    MonitorProcess source(Guest("a"));
    ASSERT_TEXT(source, "round 2 ok");
    MonitorProcess target(Waiting("b", there));
    WaitUntilItListens();
    const Outcome outcome = Ctl({"migrate", Path("a"), Uri()});
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.words, HasSubstr(says));
    const auto exit = target.WaitForExit();
    ASSERT_TRUE(exit) << target.Describe();
    EXPECT_EQ(exit->status, 1);
    EXPECT_THAT(target.errors(), HasSubstr(says));
    ExpectRight(source);
  }
}

// Slow enough that it is under way when it is disturbed.
TEST_F(NativeMigration, TheGuestRunsOnWhereItIsWhenTheOtherSideDies) {
  for (const char* const moment : {"setup", "active"}) {
    SCOPED_TRACE(moment);
    std::filesystem::remove(Path("wire"));  // the killed one's
    MonitorProcess source(Guest("a"));
    ASSERT_TEXT(source, "round 2 ok");
    MonitorProcess target(Waiting("b"));
    EXPECT_EQ(Qmp("a", {"migrate-set-parameters", "max-bandwidth=1048576"}), "{}\n");
    WaitUntilItListens();
    EXPECT_EQ(Qmp("a", {"migrate", "uri=" + Uri()}), "{}\n");
    (void)WaitForStatus("a", {moment, "active"});
    target.Signal(SIGKILL);
    ASSERT_TRUE(target.WaitForExit());
    EXPECT_THAT(WaitForStatus("a", {"failed"}), HasSubstr("closed the connection"));
    ExpectRight(source);
  }
}

TEST_F(NativeMigration, AWaitingMonitorEndsWithASentenceWhenTheSourceDies) {
  auto source = std::make_unique<MonitorProcess>(Guest("a"));
  ASSERT_TEXT(*source, "round 2 ok");
  MonitorProcess target(Waiting("b"));
  EXPECT_EQ(Qmp("a", {"migrate-set-parameters", "max-bandwidth=1048576"}), "{}\n");
  WaitUntilItListens();
  EXPECT_EQ(Qmp("a", {"migrate", "uri=" + Uri()}), "{}\n");
  (void)WaitForStatus("a", {"active"});
  source->Signal(SIGKILL);
  ASSERT_TRUE(source->WaitForExit());
  const auto exit = target.WaitForExit();
  ASSERT_TRUE(exit) << target.Describe();
  EXPECT_EQ(exit->status, 1);
  EXPECT_THAT(target.errors(), HasSubstr("closed the connection"));
}

// Of 40 MiB that it writes over and over 64 MiB/s are no match, until it has a hundredth of the
// time.
TEST_F(NativeMigration, AGuestThatWritesTooFastIsSlowedDownWhereThatIsAllowed) {
  MonitorProcess source(Guest("a", {"-append", "40"}));
  ASSERT_TEXT(source, "round 2 ok");
  EXPECT_EQ(Qmp("a", {"migrate-set-parameters", "max-bandwidth=67108864", "downtime-limit=100",
                      "cpu-throttle-initial=99"}),
            "{}\n");
  {
    MonitorProcess target(Waiting("b"));
    WaitUntilItListens();
    EXPECT_EQ(Qmp("a", {"migrate", "uri=" + Uri()}), "{}\n");
    constexpr std::string_view kPasses = "\"dirty-sync-count\": ";
    constexpr int kMany = 5, kTries = 2000;
    for (int passes = 0, tries = 0; passes < kMany; ++tries) {
      const std::string answer = Qmp("a", {"query-migrate"});
      ASSERT_LT(tries, kTries) << answer;
      ASSERT_THAT(answer, AnyOf(HasSubstr("\"active\""), HasSubstr("\"setup\"")));
      ASSERT_THAT(answer, Not(HasSubstr("cpu-throttle-percentage")));
      const std::size_t at = answer.find(kPasses);
      if (at != std::string::npos) passes = std::atoi(answer.c_str() + at + kPasses.size());
    }
    EXPECT_EQ(Qmp("a", {"migrate_cancel"}), "{}\n");
    (void)WaitForStatus("a", {"cancelled"});
    ASSERT_TRUE(target.WaitForExit());
  }
  MonitorProcess target(Waiting("b"));
  Enable("a", {"auto-converge", "pause-before-switchover"});
  WaitUntilItListens();
  EXPECT_EQ(Qmp("a", {"migrate", "uri=" + Uri()}), "{}\n");
  EXPECT_THAT(WaitForStatus("a", {"pre-switchover"}), HasSubstr("\"cpu-throttle-percentage\": 99"));
  EXPECT_EQ(Qmp("a", {"migrate-continue", "state=pre-switchover"}), "{}\n");
  ExpectRight(target);
  EXPECT_THAT(WaitForStatus("a", {"completed"}), Not(HasSubstr("cpu-throttle-percentage")));
}

TEST_F(NativeMigration, ACancelledOneCostsNothingAndCanBeTriedAgain) {
  MonitorProcess source(Guest("a"));
  ASSERT_TEXT(source, "round 2 ok");
  {
    MonitorProcess target(Waiting("b"));
    EXPECT_EQ(Qmp("a", {"migrate-set-parameters", "max-bandwidth=1048576"}), "{}\n");
    WaitUntilItListens();
    EXPECT_EQ(Qmp("a", {"migrate", "uri=" + Uri()}), "{}\n");
    (void)WaitForStatus("a", {"active"});
    EXPECT_EQ(Qmp("a", {"migrate_cancel"}), "{}\n");
    (void)WaitForStatus("a", {"cancelled"});
    ExpectRight(source);
    ASSERT_TRUE(target.WaitForExit());
  }
  EXPECT_EQ(Qmp("a", {"migrate-set-parameters", "max-bandwidth=0"}), "{}\n");
  MonitorProcess target(Waiting("b"));
  Move("a");
  ExpectRight(target);
}

// Sockets take the place of switches; the driver does not help, the guest has none.
TEST_F(NativeMigration, CardsOfAGuestThatHasComeAnnounceThemselves) {
  const UniqueFd wire(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ASSERT_TRUE(wire);
  sockaddr_un name{.sun_family = AF_UNIX, .sun_path = {}};
  Path("switch").copy(name.sun_path, sizeof name.sun_path - 1);
  ASSERT_EQ(::bind(wire.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
  const auto card = [this](const std::string& socket) {
    return Arguments{"-netdev",
                     fmt::format("dgram,id=n,local.type=unix,local.path={},remote.type=unix,"
                                 "remote.path={}",
                                 Path(socket), Path("switch")),
                     "-device", "virtio-net-pci,netdev=n,mac=52:54:00:01:02:03"};
  };
  MonitorProcess source(Guest("a", card("port-a")));
  ASSERT_TEXT(source, "round 2 ok");
  MonitorProcess target(Waiting("b", card("port-b")));
  EXPECT_THAT(Qmp("b", {"migrate-set-parameters", "announce-rounds=2"}), StartsWith("{}"));
  Move("a");
  ExpectRight(target);
  for (int round = 0; round < 2; ++round) {
    std::array<char, 128> frame{};
    sockaddr_un from{};
    socklen_t size = sizeof from;
    pollfd wait{.fd = wire.get(), .events = POLLIN, .revents = 0};
    constexpr int kAMinute = 60'000;
    ASSERT_EQ(::poll(&wait, 1, kAMinute), 1);
    const ssize_t got = ::recvfrom(wire.get(), frame.data(), frame.size(), 0,
                                   reinterpret_cast<sockaddr*>(&from), &size);
    EXPECT_EQ(got, 60);
    EXPECT_EQ(std::string_view(from.sun_path), Path("port-b"));
    EXPECT_EQ(std::string_view(frame.data() + 6, 8), "\x52\x54\x00\x01\x02\x03\x80\x35"sv);
  }
  const auto announce = [this](std::string_view names) {
    return Qmp("b", {"human-monitor-command", fmt::format("command-line=announce_self {}", names)});
  };
  std::array<char, 128> frame{};
  EXPECT_THAT(announce("nobody once"), StartsWith("\"\""));
  EXPECT_EQ(::recv(wire.get(), frame.data(), frame.size(), MSG_DONTWAIT), -1);
  EXPECT_THAT(announce("nobody,virtio-net-pci.0 again"), StartsWith("\"\""));
  EXPECT_EQ(::recv(wire.get(), frame.data(), frame.size(), MSG_DONTWAIT), 60);
}

// As libvirt does it: the monitors get their ends of the connection over their control sockets.
TEST_F(NativeMigration, TheConnectionCanBeOneThatWasPassed) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()), 0);
  MonitorProcess source(Guest("a"));
  ASSERT_TEXT(source, "round 2 ok");
  MonitorProcess target(Guest("b", {"-incoming", "defer"}));
  EXPECT_THAT(Qmp("b", {"query-status"}), HasSubstr("inmigrate"));
  for (const int i : {0, 1}) {
    const UniqueFd end(ends.at(static_cast<std::size_t>(i)));
    EXPECT_THAT(PassFd(i == 0 ? "a" : "b", end), HasSubstr("return")) << i;
  }
  EXPECT_THAT(Qmp("a", {"migrate", "uri=fd:other"}),
              HasSubstr("File descriptor named 'other' has not been found"));
  EXPECT_EQ(Qmp("b", {"migrate-incoming", "uri=fd:wire"}), "{}\n");
  EXPECT_EQ(Qmp("a", {"migrate", "uri=fd:wire"}), "{}\n");
  ExpectRight(target);
  ExpectStands("a");
}

TEST_F(NativeMigration, AStrangerIsLetGoAndTheGuestStillComes) {
  MonitorProcess source(Guest("a"));
  ASSERT_TEXT(source, "round 2 ok");
  MonitorProcess target(Waiting("b"));
  WaitUntilItListens();
  // Another monitor's control client is as strange as anybody.
  EXPECT_NE(Ctl({"qmp", Path("wire"), "query-status"}).status, 0);
  ASSERT_TRUE(target.WaitForError("was let go"));
  Move("a");
  ExpectRight(target);
}

TEST_F(NativeMigration, BeforeTheSwitchoverItWaitsForWhoeverWantsThat) {
  MonitorProcess source(Guest("a"));
  ASSERT_TEXT(source, "round 2 ok");
  MonitorProcess target(Waiting("b"));
  Enable("a", {"pause-before-switchover"});
  WaitUntilItListens();
  EXPECT_EQ(Qmp("a", {"migrate", "uri=" + Uri()}), "{}\n");
  EXPECT_THAT(WaitForStatus("a", {"pre-switchover"}), HasSubstr("pre-switchover"));
  ExpectStands("a");
  EXPECT_EQ(Qmp("a", {"migrate-continue", "state=pre-switchover"}), "{}\n");
  ExpectRight(target);
}

}  // namespace
}  // namespace holdfast::test
