// SPDX-License-Identifier: Apache-2.0
// holdfastctl beside a running guest.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "system/fixture.h"

namespace holdfast::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Json = nlohmann::json;

class Ctl : public NativeTest {
 protected:
  struct Outcome {
    std::string output;
    std::string errors;
    int status = -1;
  };

  Ctl() { ::setenv("XDG_STATE_HOME", Path("state").c_str(), 1); }

  // A guest that prints its line and stops, with a QMP server.
  Arguments Guest(const Arguments& rest = {}) const {
    return Hello("") +
           Arguments{"-name", "guest=vm1", "-qmp", "unix:" + Socket() + ",server=on,wait=off"} +
           rest;
  }
  std::string Socket() const { return Path("qmp"); }

  // Runs holdfastctl to its end; `input` is its standard input.
  static Outcome Run(const Arguments& line, std::string_view input = {}) {
    MonitorProcess ctl(line, {.program = CtlPath()});
    if (!input.empty()) ctl.Send(input);
    const auto exit = ctl.WaitForExit();
    EXPECT_TRUE(exit) << ctl.Describe();
    return {ctl.output(), ctl.errors(), exit ? exit->status : -1};
  }
  // The same for one that succeeds and prints JSON.
  static Json RunJson(const Arguments& line) {
    const Outcome outcome = Run(line);
    EXPECT_EQ(outcome.status, 0) << outcome.errors;
    return Json::parse(outcome.output, nullptr, false);
  }
};

// The highest node of this host, that one with memory comes.
unsigned LastNode() {
  unsigned last = 0;
  for (unsigned node = 0; node < 64; ++node)
    if (std::filesystem::exists("/sys/devices/system/node/node" + std::to_string(node)))
      last = node;
  return last;
}

TEST_F(Ctl, OneCommandPrintsWhatItReturns) {
  MonitorProcess monitor(Guest());
  ASSERT_TEXT(monitor, kHelloLine);
  EXPECT_EQ(RunJson({"qmp", Socket(), "query-status"})["running"], true);
  EXPECT_EQ(Run({"qmp", Socket(), "query-name"}).output, "{\n  \"name\": \"vm1\"\n}\n");
  EXPECT_EQ(Run({"qmp", "unix:" + Socket(), R"({"execute": "stop"})"}).output, "{}\n");
  EXPECT_EQ(RunJson({"qmp", Socket(), "query-status"})["status"], "paused");
}

TEST_F(Ctl, ArgumentsGetTheTypesOfTheServersSchema) {
  MonitorProcess monitor(Guest());
  ASSERT_TEXT(monitor, kHelloLine);
  // An id that looks like a number would be refused, were it sent as one.
  const Outcome added = Run({"qmp", Socket(), "object-add", "qom-type=memory-backend-ram", "id=m1",
                             "size=1M", "share=on"});
  EXPECT_EQ(added.status, 0) << added.errors;
  EXPECT_EQ(RunJson({"qmp", Socket(), "qom-get", "path=/objects/m1", "property=size"}), 1 << 20);
}

TEST_F(Ctl, ARefusedCommandIsOneSentence) {
  MonitorProcess monitor(Guest());
  ASSERT_TEXT(monitor, kHelloLine);
  const struct {
    Arguments line;
    const char* error;
  } cases[] = {
      {{"nosuch"}, "holdfastctl: qmp: The command nosuch has not been found"},
      {{"object-del", "id=zz"}, "holdfastctl: qmp: object 'zz' not found"},
      {{"stop", "now"}, "holdfastctl: qmp: 'now' is no argument. Write NAME=VALUE."},
  };
  for (const auto& c : cases) {
    const Outcome outcome = Run(Arguments{"qmp", Socket()} + c.line);
    EXPECT_THAT(outcome.errors, StartsWith(c.error));
    EXPECT_EQ(std::ranges::count(outcome.errors, '\n'), 1) << outcome.errors;
    EXPECT_EQ(outcome.output, "");
    EXPECT_EQ(outcome.status, 1);
  }
}

TEST_F(Ctl, SomethingElseThanQmpIsSaid) {
  const std::string serial = Path("serial");
  MonitorProcess monitor(Hello("") + Arguments{"-serial", "unix:" + serial + ",server=on,wait=on"});
  ASSERT_TRUE(monitor.WaitForError("waiting for connection")) << monitor.Describe();
  // Its first bytes are the guest's line.
  const Outcome outcome = Run({"info", serial});
  EXPECT_THAT(outcome.errors,
              StartsWith("holdfastctl: info: '" + serial + "' does not speak QMP: "));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_THAT(Run({"info", Path("nosuch")}).errors, HasSubstr("No such file or directory"));
}

TEST_F(Ctl, LinesOfAScriptRunUntilOneFails) {
  MonitorProcess monitor(Guest());
  ASSERT_TEXT(monitor, kHelloLine);
  const Outcome outcome = Run({"qmp", Socket()}, "# comment\nquery-name\n\nnosuch\nstop\n");
  EXPECT_EQ(outcome.output, "{\n  \"name\": \"vm1\"\n}\n");
  EXPECT_THAT(outcome.errors, HasSubstr("line 4: The command nosuch has not been found"));
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(RunJson({"qmp", Socket(), "query-status"})["running"], true);
}

TEST_F(Ctl, ThePromptCompletesRemembersAndShowsEvents) {
  MonitorProcess monitor(Guest());
  ASSERT_TEXT(monitor, kHelloLine);
  {
    MonitorProcess prompt({"qmp", Socket()}, {.terminal = true, .program = CtlPath()});
    ASSERT_TEXT(prompt, "(qmp) ");
    prompt.Send("query-sta\t");
    // The last letters come from the schema; query-stats makes "query-stat" all there is to add.
    EXPECT_TEXT(prompt, "query-stat");
    prompt.Send("us\r");
    EXPECT_TEXT(prompt, "\"running\": true");
    EXPECT_TEXT(prompt, "(qmp) ");
    // Another client stops the guest: the event shows while nobody types.
    Run({"qmp", Socket(), "stop"});
    EXPECT_TEXT(prompt, "STOP");
    prompt.Send("help object-del\r");
    EXPECT_TEXT(prompt, "id=string");
    prompt.Send("quit\r");
    EXPECT_ENDS(prompt, 0);
    EXPECT_TRUE(prompt.TerminalIsAsBefore());
  }
  EXPECT_TRUE(monitor.running());
  MonitorProcess again({"qmp", Socket()}, {.terminal = true, .program = CtlPath()});
  ASSERT_TEXT(again, "(qmp) ");
  again.Send("\x1b[A\x1b[A\x1b[A\r");  // quit, help, query-status
  EXPECT_TEXT(again, "\"status\": \"paused\"");
  EXPECT_TEXT(again, "(qmp) ");
  again.Send("execute quit\r");
  EXPECT_ENDS(again, 0);
  EXPECT_ENDS(monitor, 0);
}

TEST_F(Ctl, ThePromptSaysThatTheVmHasEnded) {
  MonitorProcess monitor(Guest());
  ASSERT_TEXT(monitor, kHelloLine);
  MonitorProcess prompt({"qmp", Socket()}, {.terminal = true, .program = CtlPath()});
  ASSERT_TEXT(prompt, "(qmp) ");
  EXPECT_TRUE(monitor.Signal(SIGKILL));
  EXPECT_ENDS(prompt, 1);
  EXPECT_THAT(prompt.errors(), HasSubstr("has closed the connection"));
  EXPECT_TRUE(prompt.TerminalIsAsBefore());
}

TEST_F(Ctl, InfoTellsWhatTheVmIs) {
  MonitorProcess monitor(
      Guest({"-smp", "2", "-machine", "memory-backend=ram0", "-object",
             "memory-backend-guest-memfd,id=ram0,size=32M,prealloc=on,bind=on"}));
  ASSERT_TEXT(monitor, kHelloLine);
  const std::string text = Run({"info", Socket()}).output;
  EXPECT_THAT(text, HasSubstr("Name     vm1\n"));
  EXPECT_THAT(text, HasSubstr("State    running\n"));
  EXPECT_THAT(text, HasSubstr("ram0            guest-memfd  32 MiB  32 MiB (100 %)"));
  const Json json = RunJson({"info", Socket(), "--json"});
  EXPECT_EQ(json["vcpus"].size(), 2U);
  const Json& backend = json["memory_backends"][0];
  EXPECT_EQ(backend["guest_memfd"], true);
  EXPECT_EQ(backend["bound"], true);
  EXPECT_EQ(backend["allocated"], 32 << 20);
  // The threads are the monitor's.
  for (const Json& cpu : json["vcpus"]) {
    const std::string task = "/proc/" + std::to_string(monitor.pid()) + "/task/" +
                             std::to_string(cpu["host_thread"].get<int>());
    EXPECT_TRUE(std::filesystem::exists(task)) << task;
  }
}

TEST_F(Ctl, TopSamplesAndItsLiveViewGivesTheTerminalBack) {
  MonitorProcess monitor(Guest());
  ASSERT_TEXT(monitor, kHelloLine);
  const Json sample = RunJson({"top", Socket(), "--json", "--interval", "0.2"});
  EXPECT_GE(sample["seconds"].get<double>(), 0.2);
  EXPECT_TRUE(sample["vcpus"][0]["use"].is_number()) << sample;
  EXPECT_TRUE(sample["exits_per_second"].is_number()) << sample;
  EXPECT_EQ(sample["memory"], 32 << 20);
  EXPECT_TRUE(sample["dirty_bytes_per_second"].is_null());
  EXPECT_THAT(Run({"top", Socket(), "--once", "--interval=0.1"}).output,
              HasSubstr("vm1 (running)  1 vCPU "));
  EXPECT_THAT(Run({"top", Socket()}).errors, HasSubstr("the live view needs a terminal"));
  MonitorProcess live({"top", Socket(), "--interval", "0.1"},
                      {.terminal = true, .program = CtlPath()});
  EXPECT_TEXT(live, "q quits");
  EXPECT_TEXT(live, "q quits");
  live.Send("q");
  EXPECT_ENDS(live, 0);
  EXPECT_TRUE(live.TerminalIsAsBefore());
}

TEST_F(Ctl, TheMapShowsWhatIsAllocatedAndAllocatesNothing) {
  const unsigned node = LastNode();
  MonitorProcess monitor(
      Guest({"-numa", "node,memdev=ram0,cpus=0", "-numa", "node,memdev=ram1", "-object",
             "memory-backend-guest-memfd,id=ram0,size=16M", "-object",
             "memory-backend-guest-memfd,id=ram1,size=16M,prealloc=on,policy=bind,host-nodes=" +
                 std::to_string(node)}));
  ASSERT_TEXT(monitor, kHelloLine);
  const Json first = RunJson({"map", Socket(), "--json"});
  EXPECT_EQ(first["size"], 32 << 20);
  for (const Json& backend : first["backends"]) {
    const std::uint64_t allocated = backend["allocated"];
    if (backend["id"] == "ram1") {
      EXPECT_EQ(allocated, 16U << 20U);
      EXPECT_EQ(backend["nodes"][node], 16 << 20);
    } else {
      EXPECT_GT(allocated, 0U);
      EXPECT_LT(allocated, 16U << 20U);  // the guest touches a part
    }
  }
  EXPECT_EQ(RunJson({"map", Socket(), "--json"}), first);
  const std::string text = Run({"map", Socket(), "--width", "80"}).output;
  const std::string row(64, static_cast<char>('a' + node));
  EXPECT_THAT(text, HasSubstr("0x1000000     " + row + "\n"));
  EXPECT_THAT(text, HasSubstr("."));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  const std::string file = Path("map.png");
  EXPECT_THAT(Run({"map", Socket(), "--png", file}).output, HasSubstr("Written to " + file));
  std::ifstream png(file, std::ios::binary);
  std::stringstream bytes;
  bytes << png.rdbuf();
  EXPECT_THAT(bytes.str(), StartsWith("\x89PNG\r\n"));
  EXPECT_EQ(Run({"map", Socket(), "--png", "/nonexistent/x.png"}).errors,
            "holdfastctl: map: cannot write '/nonexistent/x.png': No such file or directory\n");
}

}  // namespace
}  // namespace holdfast::test
