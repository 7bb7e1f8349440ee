// SPDX-License-Identifier: Apache-2.0
// A guest goes on under another monitor of the same host with its memory where it is (mode=cpr-…),
// or from a file.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "system/native_migration.h"

namespace holdfast::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class NativeUpgrade : public NativeMigration {
 protected:
  void Set(const std::string& name, const std::string& parameter) const {
    EXPECT_EQ(Qmp(name, {"migrate-set-parameters", parameter}), "{}\n");
  }
  std::string CprUri() const { return "unix:" + Path("cpr"); }
  // A monitor that takes a guest over, with the options that the guest has.
  Arguments Heir(const std::string& name, const Arguments& rest = {}) const {
    const nlohmann::json channel = {
        {"channel-type", "cpr"},
        {"addr", {{"transport", "socket"}, {"type", "unix"}, {"path", Path("cpr")}}}};
    return Guest(name, rest + Arguments{"-incoming", channel.dump()});
  }
  // cpr-exec-command as the control protocol takes it.
  static std::string Command(const Arguments& words) {
    return "cpr-exec-command=" + nlohmann::json(words).dump();
  }
};

const Arguments kMemories[] = {
    {},
    {"-object", "memory-backend-memfd,id=m,size=64M", "-machine", "memory-backend=m"},
    {"-object", "memory-backend-ram,share=on,id=m,size=64M", "-machine", "memory-backend=m"},
};

TEST_F(NativeUpgrade, TheGuestGoesOnWhenItsMonitorBecomesAnotherProgram) {
  for (const Arguments& memory : kMemories) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(memory, " ")));
    MonitorProcess monitor(Guest("a", memory));
    ASSERT_TEXT(monitor, "round 2 ok");
    Set("a", "mode=cpr-exec");
    // More than once: what the new one has inherited it can pass on.
    for (int i = 0; i < 2; ++i) {
      if (i > 0) Set("a", "mode=cpr-exec");
      Set("a", Command(Arguments{MonitorPath()} + Guest("a", memory)));
      EXPECT_EQ(Qmp("a", {"migrate", "uri=file:unused"}), "{}\n");
      ASSERT_TRUE(monitor.WaitForError("took the guest over from holdfast"));
      ASSERT_TRUE(monitor.WaitForError(" 0 pages were copied"));
      ExpectRight(monitor);
    }
    EXPECT_THAT(Qmp("a", {"query-status"}), HasSubstr("\"running\": true"));
    // It started once only, and all went on from there.
    const std::string out = monitor.output();
    EXPECT_EQ(out.find("start"), out.rfind("start")) << out;
  }
}

TEST_F(NativeUpgrade, AProgramThatCannotBeExecutedLeavesTheGuestRunning) {
  const struct {
    Arguments command;
    const char* says;
  } kCases[] = {
      {{}, "cpr-exec-command"},
      {{Path("none")}, "cannot execute"},
  };
  MonitorProcess monitor(Guest("a"));
  ASSERT_TEXT(monitor, "round 2 ok");
  Set("a", "mode=cpr-exec");
  for (const auto& [command, says] : kCases) {
    SCOPED_TRACE(says);
    if (!command.empty()) Set("a", Command(command));
    EXPECT_THAT(Qmp("a", {"migrate", "uri=file:unused"}), HasSubstr(says));
    ExpectRight(monitor);
  }
  // A program that is there and no program shows only when it is executed.
  std::ofstream(Path("text")) << "text";
  std::filesystem::permissions(Path("text"), std::filesystem::perms::all);
  Set("a", Command({Path("text")}));
  EXPECT_EQ(Qmp("a", {"migrate", "uri=file:unused"}), "{}\n");
  EXPECT_THAT(WaitForStatus("a", {"failed"}), HasSubstr("cannot execute"));
  ExpectRight(monitor);
}

TEST_F(NativeUpgrade, AnotherProcessTakesTheGuestOverWithItsMemory) {
  for (const Arguments& memory : kMemories) {
    SCOPED_TRACE(fmt::format("{}", fmt::join(memory, " ")));
    std::filesystem::remove(Path("cpr"));
    MonitorProcess old(Guest("a", memory));
    ASSERT_TEXT(old, "round 2 ok");
    MonitorProcess heir(Heir("b", memory));
    WaitUntilItListens("cpr");
    Set("a", "mode=cpr-transfer");
    EXPECT_EQ(Qmp("a", {"migrate", "uri=" + CprUri()}), "{}\n");
    EXPECT_THAT(WaitForStatus("a", {"completed", "failed"}), HasSubstr("\"completed\""));
    ExpectRight(heir);
    EXPECT_THAT(heir.output(), Not(HasSubstr("start")));
    ExpectStands("a");
    // It is the other one's now, and stays that.
    EXPECT_THAT(Qmp("a", {"cont"}), HasSubstr("another monitor"));
    // The memory is the guest's when the one who made it has gone, too.
    old.Signal(SIGKILL);
    ASSERT_TRUE(old.WaitForExit());
    ExpectRight(heir);
  }
}

TEST_F(NativeUpgrade, AMonitorThatCannotTakeTheGuestOverLeavesItWhereItIs) {
  const struct {
    Arguments there;
    const char* says;
  } kCases[] = {
      {{"-m", "48M"}, "48"},
      {{"-device", "virtio-rng-pci"}, "virtio-rng-pci"},
  };
  for (const auto& [there, says] : kCases) {
    SCOPED_TRACE(says);
    std::filesystem::remove(Path("cpr"));
    MonitorProcess old(Guest("a"));
    ASSERT_TEXT(old, "round 2 ok");
    MonitorProcess heir(Heir("b", there));
    WaitUntilItListens("cpr");
    Set("a", "mode=cpr-transfer");
    EXPECT_EQ(Qmp("a", {"migrate", "uri=" + CprUri()}), "{}\n");
    EXPECT_THAT(WaitForStatus("a", {"completed", "failed"}), HasSubstr(says));
    const auto exit = heir.WaitForExit();
    ASSERT_TRUE(exit) << heir.Describe();
    EXPECT_EQ(exit->status, 1);
    EXPECT_THAT(heir.errors(), HasSubstr(says));
    ExpectRight(old);
  }
}

TEST_F(NativeUpgrade, WhatCannotBePassedOnIsRefusedInASentence) {
  const struct {
    Arguments here;
    Arguments parameters;
    std::string uri;
    const char* says;
  } kCases[] = {
      {{}, {"mode=cpr-transfer"}, "tcp:127.0.0.1:1", "descriptors cannot be passed"},
      {{}, {"mode=cpr-transfer"}, "unix:" + Path("none"), "none"},
      {{}, {"mode=cpr-reboot"}, "unix:" + Path("none"), "Use file:PATH"},
      {{}, {"tls-creds=k"}, "file:" + Path("f"), "is not encrypted"},
      {{}, {}, "file:" + Path("f") + ",offset=4096", "offset"},
      {{}, {}, "file:" + Path("no/f"), "no/f"},
      {{"-object", "memory-backend-ram,id=m,size=64M", "-machine", "memory-backend=m"},
       {"mode=cpr-transfer"},
       CprUri(),
       "share=on"},
  };
  for (const auto& [here, parameters, uri, says] : kCases) {
    SCOPED_TRACE(says);
    MonitorProcess monitor(Guest("a", here));
    ASSERT_TEXT(monitor, "round 2 ok");
    for (const std::string& parameter : parameters) Set("a", parameter);
    EXPECT_THAT(Qmp("a", {"migrate", "uri=" + uri}), HasSubstr(says));
    ExpectRight(monitor);
  }
}

TEST_F(NativeUpgrade, AGuestGoesIntoAFileAndComesOutOfIt) {
  for (const char* const mode : {"normal", "cpr-reboot"}) {
    SCOPED_TRACE(mode);
    const std::string file = "file:" + Path(mode);
    {
      MonitorProcess monitor(Guest("a"));
      ASSERT_TEXT(monitor, "round 2 ok");
      Set("a", fmt::format("mode={}", mode));
      EXPECT_EQ(Qmp("a", {"migrate", "uri=" + file}), "{}\n");
      EXPECT_THAT(WaitForStatus("a", {"completed", "failed"}), HasSubstr("\"completed\""));
      EXPECT_THAT(Qmp("a", {"query-status"}), HasSubstr("postmigrate"));
    }
    MonitorProcess monitor(Guest("b", {"-incoming", file}));
    ExpectRight(monitor);
    EXPECT_THAT(monitor.output(), Not(HasSubstr("start"))) << monitor.Describe();
  }
}

}  // namespace
}  // namespace holdfast::test
