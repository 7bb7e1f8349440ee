// SPDX-License-Identifier: Apache-2.0
// Snapshots of a guest that writes all its memory over and over and checks what it finds there:
// taken while it stands and while it runs, whole and as differences, killed and restored.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <memory>

#include "system/linux_guest.h"
#include "system/native_snapshot.h"

namespace holdfast::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct Backend {
  const char* name;
  Arguments line;
};
const Backend kBackends[] = {
    {"default", {}},
    {"bound",
     {"-object", "memory-backend-guest-memfd,id=m,size=32M,bind=on", "-machine",
      "memory-backend=m"}},
    {"memfd", {"-object", "memory-backend-memfd,id=m,size=32M", "-machine", "memory-backend=m"}},
    {"ram", {"-object", "memory-backend-ram,id=m,size=32M", "-machine", "memory-backend=m"}},
};

TEST_F(NativeSnapshot, AKilledGuestGoesOnWhereItWasSaved) {
  for (const Backend& backend : kBackends) {
    for (const Arguments& how : {Arguments{}, Arguments{"--zstd"}}) {
      SCOPED_TRACE(backend.name);
      const std::string file = Path("a.snapshot");
      MonitorProcess monitor(Guest(backend.line));
      ASSERT_TEXT(monitor, "round 2 ok");
      Save(file, how);
      ExpectRight(monitor);
      Kill(monitor);
      ExpectGoesOn(file, backend.line);
      ExpectGoesOn(file, backend.line, ",prefault=on");
    }
  }
}

// The background reads next to nothing, so that the guest finds its memory by touching it.
TEST_F(NativeSnapshot, MemoryComesWhenTheGuestTouchesIt) {
  for (const Backend& backend : kBackends) {
    SCOPED_TRACE(backend.name);
    MonitorProcess monitor(Guest(backend.line));
    ASSERT_TEXT(monitor, "round 2 ok");
    Save(Path("a.snapshot"));
    Kill(monitor);
    ExpectGoesOn(Path("a.snapshot"), backend.line, ",bandwidth=4k");
  }
}

TEST_F(NativeSnapshot, TheGuestRunsWhileALiveOneIsTaken) {
  for (const Backend& backend : kBackends) {
    SCOPED_TRACE(backend.name);
    MonitorProcess monitor(Guest(backend.line));
    ASSERT_TEXT(monitor, "round 2 ok");
    for (int round = 0; round < 3; ++round) {
      Save(Path("a.snapshot"), {"--live"});
      ExpectRight(monitor);
    }
    Kill(monitor);
    ExpectGoesOn(Path("a.snapshot"), backend.line);
  }
}

// Threads of a job, dirty logs, renamed files, memory that is read on demand: the filters know it.
TEST_F(NativeSnapshot, TheSandboxDoesNotStandInTheWay) {
  const Arguments sandbox{"-sandbox", "on"};
  for (const Backend& backend : kBackends) {
    SCOPED_TRACE(backend.name);
    MonitorProcess monitor(Guest(backend.line + sandbox));
    ASSERT_TEXT(monitor, "round 2 ok");
    Save(Path("a"), {"--live"});
    Save(Path("b"), {"--diff", Path("a"), "--zstd"});
    EXPECT_EQ(Ctl({"load", Socket(), Path("b")}).status, 0);
    ExpectRight(monitor);
    Kill(monitor);
    ExpectGoesOn(Path("b"), backend.line + sandbox);
  }
}

TEST_F(NativeSnapshot, AChainOfDifferencesRestoresAndMergesToTheSame) {
  MonitorProcess monitor(Guest());
  ASSERT_TEXT(monitor, "round 2 ok");
  Save(Path("0"));
  const int last = LongForm() ? 20 : 4;
  for (int i = 1; i <= last; ++i) {
    // By turns standing and running.
    Arguments how{"--diff", Path(std::to_string(i - 1))};
    if (i % 2 == 0) how.emplace_back("--live");
    Save(Path(std::to_string(i)), how);
    ExpectRight(monitor);
  }
  Kill(monitor);
  for (int i = 0; i <= last; ++i) ExpectGoesOn(Path(std::to_string(i)));

  const std::string newest = Path(std::to_string(last));
  EXPECT_LT(std::filesystem::file_size(newest), 5U << 20) << "the guest writes 2 MiB of its 32";
  EXPECT_EQ(Ctl({"merge", newest, Path("merged")}).status, 0);
  EXPECT_THAT(Ctl({"diff", newest, Path("merged")}).output, ::testing::StartsWith("0 pages"));
  EXPECT_THAT(Ctl({"verify", Path("merged")}).output, HasSubstr("whole"));
  EXPECT_THAT(Ctl({"info", newest}).output, HasSubstr("on top of"));
  std::filesystem::remove(Path("0"));
  ExpectGoesOn(Path("merged"));
}

// What the guest finds in its memory and what the monitor has there are one number; each snapshot
// of a chain, of a guest that has written all of it in between, restores to its own.
TEST_F(NativeSnapshot, EachOfAChainHasTheMemoryThatTheGuestHadThen) {
  const int last = LongForm() ? 20 : 1;
  std::vector<std::string> hashes;
  {
    MonitorProcess monitor(Guest());
    ASSERT_TEXT(monitor, "round 2 ok");
    for (int i = 0; i <= last; ++i) {
      hashes.push_back(AskForHash(monitor));
      EXPECT_EQ(HashFromOutside(), hashes.back()) << i;
      Arguments how;
      if (i > 0) how = {"--diff", Path(std::to_string(i - 1))};
      if (i % 2 == 0) how.emplace_back("--live");
      Save(Path(std::to_string(i)), how);
      ASSERT_TRUE(monitor.Send("g"));
      ExpectRight(monitor);
    }
    Kill(monitor);
  }
  for (int i = 0; i <= last; ++i) {
    SCOPED_TRACE(i);
    const auto index = static_cast<std::size_t>(i);
    if (i > 0) {
      EXPECT_NE(hashes[index], hashes[index - 1]) << "the guest has written";
    }
    const std::string how = i % 2 == 0 ? "" : ",prefault=on";
    MonitorProcess restored(Guest({"-incoming", "file:" + Path(std::to_string(i)) + how}));
    EXPECT_EQ(AskForHash(restored), hashes[index]);
    EXPECT_EQ(HashFromOutside(), hashes[index]);
    ASSERT_TRUE(restored.Send("g"));
    ExpectRight(restored);
  }
}

TEST_F(NativeSnapshot, SavedAndRestoredOverAndOver) {
  const int rounds = LongForm() ? 200 : 5;
  auto monitor = std::make_unique<MonitorProcess>(Guest());
  ASSERT_TEXT(*monitor, "round 2 ok");
  for (int round = 0; round < rounds && !HasFailure(); ++round) {
    SCOPED_TRACE(round);
    // Standing and live, lazily and at once, each with each.
    Save(Path("a"), round % 2 == 0 ? Arguments{} : Arguments{"--live"});
    Kill(*monitor);
    const std::string how = round / 2 % 2 == 0 ? "" : ",prefault=on";
    monitor = std::make_unique<MonitorProcess>(Guest({"-incoming", "file:" + Path("a") + how}));
    ExpectRight(*monitor);
  }
}

TEST_F(NativeSnapshot, ARunningMachineGoesBackAndADamagedFileCostsItNothing) {
  MonitorProcess monitor(Guest());
  ASSERT_TEXT(monitor, "round 2 ok");
  Save(Path("a"));
  ExpectRight(monitor);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Ctl({"load", Socket(), Path("a")}).status, 0);
    ExpectRight(monitor);
  }
  // One byte of memory, far from the tables.
  const auto middle = static_cast<off_t>(std::filesystem::file_size(Path("a")) / 2);
  ASSERT_EQ(::truncate(Path("a").c_str(), middle), 0);
  const Outcome refused = Ctl({"load", Socket(), Path("a")});
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.errors, HasSubstr(Path("a")));
  ExpectRight(monitor);
}

TEST_F(NativeSnapshot, APausedGuestIsSavedAndRestoredPaused) {
  MonitorProcess monitor(Guest());
  ASSERT_TEXT(monitor, "round 2 ok");
  Qmp("stop");
  Save(Path("a"));
  EXPECT_THAT(Qmp("query-status"), HasSubstr("paused"));
  Kill(monitor);
  MonitorProcess restored(Guest({"-incoming", "file:" + Path("a")}));
  EXPECT_THAT(Qmp("query-status"), HasSubstr("paused"));
  Qmp("cont");
  ExpectRight(restored);
}

// Whoever copies the disks needs a guest that has stopped where the snapshot was taken.
TEST_F(NativeSnapshot, AGuestCanBeLeftStandingAndIsRestoredRunning) {
  MonitorProcess monitor(Guest());
  ASSERT_TEXT(monitor, "round 2 ok");
  for (const Arguments& how : {Arguments{}, Arguments{"--live"}}) {
    Save(Path("a"), how + Arguments{"--stop"});
    EXPECT_THAT(Qmp("query-status"), HasSubstr("paused"));
    Qmp("cont");
    ExpectRight(monitor);
  }
  Kill(monitor);
  ExpectGoesOn(Path("a"));
}

TEST_F(NativeSnapshot, AnotherMachineIsRefusedInASentence) {
  MonitorProcess monitor(Guest());
  ASSERT_TEXT(monitor, "round 2 ok");
  Save(Path("a"));
  Kill(monitor);
  const struct {
    Arguments line;
    const char* says;
  } cases[] = {
      {{"-m", "64M"}, "the memory 'pc.ram' is of 32 MiB in the snapshot"},
      {{"-smp", "2"}, "this machine needs"},
      {{"-device", "virtio-rng-pci"}, "this machine needs"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.says);
    MonitorProcess other(Guest(Arguments{"-incoming", "file:" + Path("a")} + c.line));
    EXPECT_ENDS(other, 1);
    EXPECT_THAT(other.errors(), HasSubstr(c.says));
  }
}

TEST_F(NativeSnapshot, ASnapshotStartsItsMonitorAgain) {
  MonitorProcess monitor(Guest());
  ASSERT_TEXT(monitor, "round 2 ok");
  Save(Path("a,b"));
  Kill(monitor);
  MonitorProcess restored({"snapshot", "restore", Path("a,b")}, {.program = CtlPath()});
  ExpectRight(restored);
}

// As long as nothing is finished the old file is there; a monitor that is killed leaves it so.
TEST_F(NativeSnapshot, KilledWhileSavingTheOldSnapshotRestores) {
  const int rounds = LongForm() ? 100 : 5;
  {
    MonitorProcess monitor(Guest());
    ASSERT_TEXT(monitor, "round 2 ok");
    Save(Path("a"));
  }
  for (int round = 0; round < rounds; ++round) {
    MonitorProcess monitor(Guest({"-incoming", "file:" + Path("a")}));
    ASSERT_TEXT(monitor, " ok\n");
    MonitorProcess ctl(Arguments{"snapshot", "create", Socket(), Path("a"), "--live"},
                       {.program = CtlPath()});
    // At another moment each time.
    monitor.ReadFor(0.002 * round);
    monitor.Signal(SIGKILL);
    ASSERT_TRUE(monitor.WaitForExit());
    ASSERT_TRUE(ctl.WaitForExit());
  }
  ExpectGoesOn(Path("a"));
}

// There, full rings lose entries.
TEST_F(LinuxPatternSnapshot, WithDirtyRingsALiveOneIsTakenToo) {
  const Arguments rings{"-accel", "kvm,dirty-ring-size=1024", "-smp", "2"};
  for (const Backend& backend : kBackends) {
    SCOPED_TRACE(backend.name);
    MonitorProcess monitor(Guest(backend.line + rings));
    ASSERT_TEXT(monitor, "round 2 ok");
    for (int round = 0; round < 3; ++round) {
      Save(Path("a.snapshot"), {"--live"});
      ExpectRight(monitor);
    }
    Kill(monitor);
    ExpectGoesOn(Path("a.snapshot"), backend.line + rings);
  }
}

TEST_F(LinuxPatternSnapshot, TheDirtyRateIsThatOfAGuestThatWritesTwoMegabytesOverAndOver) {
  MonitorProcess monitor(Guest({"-accel", "kvm,dirty-ring-size=4096"}));
  ASSERT_TEXT(monitor, "round 2 ok");
  for (const char* const mode : {"page-sampling", "dirty-ring"}) {
    MonitorProcess ctl(Arguments{"dirty-rate", Socket(), "--seconds", "0.5", "--mode", mode},
                       {.program = CtlPath()});
    const auto exit = ctl.WaitForExit();
    ASSERT_TRUE(exit) << ctl.Describe();
    EXPECT_EQ(exit->status, 0) << ctl.errors();
    EXPECT_THAT(ctl.output(), HasSubstr(fmt::format("MiB/s by {}", mode)));
    // All of them within the time, unless the host is very busy: 2 MiB in half a second or more.
    EXPECT_THAT(ctl.output(), ::testing::MatchesRegex("[0-5] MiB/s by [a-z-]+\n.*"));
  }
  ExpectRight(monitor);
  MonitorProcess ctl(Arguments{"dirty-rate", Socket(), "--mode", "dirty-bitmap"},
                     {.program = CtlPath()});
  ASSERT_TRUE(ctl.WaitForExit());
  EXPECT_THAT(ctl.errors(), HasSubstr("no dirty log where it has dirty rings"));
}

}  // namespace
}  // namespace holdfast::test
