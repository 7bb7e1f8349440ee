// SPDX-License-Identifier: Apache-2.0
// The human monitor's commands on a running machine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "system/fixture.h"

namespace holdfast::test {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

class NativeMonitor : public NativeTest {
 protected:
  // hello with the monitor alone on standard input and output.
  Arguments WithMonitor(const Arguments& more = {}) const {
    return Arguments{"-m",       "32M",  "-kernel", HelloPath(),
                     "-display", "none", "-serial", "file:" + Path("serial"),
                     "-monitor", "stdio"} +
           more;
  }
  // Until the guest has said its line and stands in HLT.
  static void WaitForHalt(MonitorProcess& monitor) {
    ASSERT_TEXT(monitor, kPrompt);
    for (int tries = 0; tries < 600; ++tries) {
      if (RunCommand(monitor, "info registers").find("HLT=1") != std::string::npos) return;
      monitor.ReadFor(0.1);
    }
    FAIL() << "the guest never halted: " << monitor.Describe();
  }
};

TEST_F(NativeMonitor, InfoTellsOfTheMachine) {
  MonitorProcess monitor(WithMonitor({"-smp", "2", "-name", "guest one", "-object",
                                      "memory-backend-guest-memfd,id=spare,size=1M"}));
  ASSERT_TEXT(monitor, kPrompt);
  const struct {
    const char* command;
    const char* pattern;
  } cases[] = {
      {"info status", "VM status: running"},
      {"info name", "guest one"},
      {"info cpus", "\\* CPU #0: thread_id=[0-9]+\r\n  CPU #1: thread_id=[0-9]+"},
      {"info kvm", "kvm support: enabled"},
      {"info memory_size_summary", "base memory: 33554432\r\nplugged memory: 0"},
      {"info memdev", "memory backend: spare\r\n  size:  1048576\r\n  merge: "},
      {"info memdev", "memory backend: pc.ram\r\n  size:  33554432\r\n.*share: true"},
      {"info numa", "0 nodes"},
      {"info mtree", "0000000000000000-0000000001ffffff \\(prio 0, ram\\): pc.ram"},
      {"info mtree -f", "00000000000003f8-00000000000003ff \\(prio 0, i/o\\): serial"},
      {"info ramblock", "pc.ram +4 KiB +0x0000000000000000 0x0000000002000000"},
      {"info qtree", "dev: serial\r\n    pio 00000000000003f8/0000000000000008"},
      {"info registers 1", "CPU#1\r\nRAX="},
      {"info registers 2", "Error: CPU#2 not available. The vCPUs are 0 to 1"},
      {"info chardev", "serial0: filename="},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(RunCommand(monitor, c.command), ContainsRegex(c.pattern)) << c.command;
  }
  monitor.Send("quit\n");
  EXPECT_ENDS(monitor, 0);
}

TEST_F(NativeMonitor, ExamineShowsTheGuestsMemory) {
  MonitorProcess monitor(WithMonitor());
  WaitForHalt(monitor);
  // The guest's pages map one to one, so that both views of its code are the same.
  const std::string physical = RunCommand(monitor, "xp /16xb $rip-16");
  EXPECT_THAT(physical, ContainsRegex("0000000000100[0-9a-f]+: 0x[0-9a-f][0-9a-f] "));
  EXPECT_THAT(RunCommand(monitor, "x /16xb $rip-16"),
              HasSubstr(physical.substr(physical.find("\r\n"))));
  // The instruction before the one it stands at is HLT.
  EXPECT_THAT(RunCommand(monitor, "xp /1xb $rip-1"), HasSubstr(": 0xf4"));
  for (const char* command : {"xp 0x2000000", "xp /2xg 0x1fffff8", "xp 0xfffffffffffffffc"}) {
    EXPECT_THAT(RunCommand(monitor, command),
                HasSubstr("Error: Cannot access memory at guest physical address"))
        << command;
  }
  EXPECT_THAT(RunCommand(monitor, "xp /1i 0"), HasSubstr("no disassembler"));
  EXPECT_THAT(RunCommand(monitor, "xp"), HasSubstr("Error: the address is missing"));
  EXPECT_THAT(RunCommand(monitor, "xp $nosuch"), HasSubstr("invalid address '$nosuch'"));
}

TEST_F(NativeMonitor, TraceEventTakesEffectAtOnce) {
  MonitorProcess monitor(WithMonitor());
  WaitForHalt(monitor);
  EXPECT_EQ(monitor.errors(), "");
  RunCommand(monitor, "trace-event cpu_out on");
  RunCommand(monitor, "system_reset");
  EXPECT_TRUE(monitor.WaitForError("cpu_out addr 0x3f8(b) value ")) << monitor.Describe();
  EXPECT_THAT(RunCommand(monitor, "info trace-events cpu_*"),
              AllOf(HasSubstr("cpu_in : state 0"), HasSubstr("cpu_out : state 1")));
}

}  // namespace
}  // namespace holdfast::test
