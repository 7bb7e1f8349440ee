// SPDX-License-Identifier: Apache-2.0
#include "control/human_commands.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/trace.h"
#include "control/context.h"

namespace holdfast::control {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// What needs no machine; the commands that do are tested on a running monitor (tests/system).
class HumanCommandsTest : public ::testing::Test {
 protected:
  HumanCommandsTest() {
    context_.version = "0.1.0";
    context_.name = "guest one";
    context_.uuid = "00000000-0000-0000-0000-000000000000";
    context_.quit = [this] { ++quits_; };
    context_.chardevs = [] {
      return std::vector<ChardevInfo>{{"serial0", "stdio", true}, {"monitor", "null", true}};
    };
  }
  std::string Ask(std::string_view line) { return commands_.Execute(line); }

  int quits_ = 0;
  VmContext context_;
  HumanCommands commands_{context_};
};

TEST_F(HumanCommandsTest, AnswersAsQemuDoes) {
  const struct {
    const char* line;
    const char* answer;
  } cases[] = {
      {"", ""},
      {"   ", ""},
      {"info version", "0.1.0\n"},
      {"  info   version  ", "0.1.0\n"},
      {"info name", "guest one\n"},
      {"info uuid", "00000000-0000-0000-0000-000000000000\n"},
      {"info kvm", "kvm support: enabled\n"},
      {"info chardev", "serial0: filename=stdio\nmonitor: filename=null\n"},
      {"help stop", "stop|s -- stop the guest's vCPUs\n"},
      {"help info status", "info status -- show whether the guest runs\n"},
  };
  for (const auto& c : cases) EXPECT_EQ(Ask(c.line), c.answer) << c.line;
}

TEST_F(HumanCommandsTest, QuitsByEitherName) {
  EXPECT_EQ(Ask("quit") + Ask("q"), "");
  EXPECT_EQ(quits_, 2);
}

TEST_F(HumanCommandsTest, SaysWhatItDoesNotUnderstand) {
  const struct {
    const char* line;
    const char* says;
  } cases[] = {
      {"nosuch", "unknown command: 'nosuch'\n"},
      {"stop/4", "unknown command: 'stop/4'\n"},
      {"info nosuch", "unknown command: 'info nosuch'\n"},
      {"help nosuch", "unknown command: 'nosuch'\n"},
      {"quit now", "quit: extraneous characters at the end of line\n"},
      {"info mtree -x", "Error: info mtree: unknown option '-x'. "},
      {"trace-event", "Error: trace-event expects a name, and 'on' or 'off'. "},
      {"trace-event kvm_run_exit maybe", "Error: trace-event expects a name, and 'on' or 'off'. "},
      {"trace-event nosuch on", "Error: unknown event \"nosuch\". "},
      {"info trace-events nosuch", "Error: unknown event \"nosuch\". "},
  };
  for (const auto& c : cases) EXPECT_THAT(Ask(c.line), HasSubstr(c.says)) << c.line;
  EXPECT_EQ(quits_, 0);
}

TEST_F(HumanCommandsTest, HelpListsEveryCommand) {
  const std::string all = Ask("help");
  for (const char* name :
       {"cont|c", "help|?", "info [subcommand]", "quit|q", "stop|s", "system_powerdown",
        "system_reset", "trace-event name on|off", "x /fmt addr", "xp /fmt addr"}) {
    EXPECT_THAT(all, HasSubstr(name));
  }
  const std::string info = Ask("help info");
  for (const char* name : {"status", "version", "cpus", "memdev", "memory_size_summary", "numa",
                           "mtree", "ramblock", "qtree", "trace-events", "registers", "kvm"}) {
    EXPECT_THAT(info, HasSubstr(std::string("info ") + name));
  }
  EXPECT_EQ(Ask("info"), info);
}

TEST_F(HumanCommandsTest, TurnsTraceEventsOnAndOff) {
  EXPECT_EQ(Ask("info trace-events kvm_run_exit"), "kvm_run_exit : state 0\n");
  EXPECT_EQ(Ask("trace-event kvm_run_* on"), "");
  EXPECT_EQ(Ask("info trace-events kvm_run_exit"), "kvm_run_exit : state 1\n");
  EXPECT_THAT(Ask("info trace-events"), HasSubstr("cpu_in : state 0\n"));
  EXPECT_THAT(Ask("info trace-events kvm*"), Not(HasSubstr("cpu_in")));
  EXPECT_EQ(Ask("trace-event kvm_run_exit off"), "");
  EXPECT_FALSE(trace::events::kvm_run_exit.enabled());
}

}  // namespace
}  // namespace holdfast::control
