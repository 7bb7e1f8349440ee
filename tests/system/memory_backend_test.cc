// SPDX-License-Identifier: Apache-2.0
// The monitor with memory from each kind of backend: a guest runs in it, what cannot be had is
// refused in one sentence, and preallocation can be interrupted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>

#include "system/fixture.h"
#include "system/process_memory.h"

namespace holdfast::test {
namespace {

using ::testing::HasSubstr;

class NativeMemory : public NativeTest {
 protected:
  // hello in memory of this backend, whose id is ram0; `properties` come after "memory-backend-".
  static Arguments In(const std::string& properties) {
    return {"-kernel",
            HelloPath(),
            "-nographic",
            "-append",
            "0",
            "-device",
            "isa-debug-exit",
            "-machine",
            "memory-backend=ram0",
            "-object",
            "memory-backend-" + properties + ",id=ram0"};
  }
};

TEST_F(NativeMemory, AGuestRunsInEachTypeOfBackend) {
  const std::string rows[] = {
      "ram,size=32M",
      "ram,size=32M,share=on,prealloc=on,prealloc-threads=2",
      "memfd,size=32M",
      "memfd,size=32M,guest-memfd=on,bind=on",
      "memfd,size=32M,guest-memfd=off,policy=bind,host-nodes=0",
      "memfd,size=32M,share=off",
      "shm,size=32M,merge=off,dump=off,reserve=off",
      "guest-memfd,size=32M,prealloc=on,policy=interleave,host-nodes=0",
      "file,size=32M,share=on,mem-path=" + Path("ram"),
      "file,size=32M,offset=1M,align=2M,mem-path=" + MakeFile("sparse", ""),
      "file,size=32M,mem-path=" + Path(""),
  };
  for (const std::string& row : rows) {
    SCOPED_TRACE(row);
    MonitorProcess monitor(In(row));
    EXPECT_TEXT(monitor, kHelloLine);
    EXPECT_ENDS(monitor, 1);
    EXPECT_EQ(monitor.errors(), "");
  }
}

TEST_F(NativeMemory, PreallocatedMemoryIsThereBeforeTheGuestRuns) {
  MonitorProcess monitor(In("guest-memfd,size=64M,prealloc=on") + Arguments{"-S", "-smp", "2"});
  ASSERT_TRUE(monitor.Send(CtrlA('c')));
  ASSERT_TEXT(monitor, kPrompt);
  const auto memfds = GuestMemfdsOf(monitor.pid());
  ASSERT_EQ(memfds.size(), 1U);
  EXPECT_EQ(memfds[0].present, 64 * kMiB);
}

TEST_F(NativeMemory, WhatCannotBeHadIsOneSentence) {
  const struct {
    std::string properties;
    const char* message;
  } rows[] = {
      {"file,size=32M,mem-path=/nonexist/x",
       "can't open backing store /nonexist/x for guest RAM: No such file or directory"},
      {"file,size=1M,mem-path=" + MakeFile("short", "abc"), "backing store size 0x3 is too small"},
      {"guest-memfd,size=32M,prealloc=on,policy=bind,host-nodes=9",
       "cannot bind memory to host NUMA nodes: Invalid argument"},
      // More than a machine has, and twice that still fits TSan's address space.
      {"guest-memfd,size=600G,prealloc=on",
       "qemu_prealloc_mem: preallocating memory failed: Cannot allocate memory: 'ram0' needs 600 "
       "GiB"},
      {"file,size=1M,readonly=on,share=on,mem-path=" + MakeFile("rom", std::string(1 << 20, 'x')),
       "read-only memory"},
  };
  for (const auto& row : rows) {
    SCOPED_TRACE(row.properties);
    MonitorProcess monitor(In(row.properties));
    EXPECT_ENDS(monitor, 1);
    EXPECT_THAT(monitor.errors(), HasSubstr(row.message));
    EXPECT_EQ(std::ranges::count(monitor.errors(), '\n'), 1);
  }
}

TEST_F(NativeMemory, PreallocationIsInterruptedBySignals) {
  for (const int signal : {SIGINT, SIGTERM}) {
    MonitorProcess monitor(In("guest-memfd,size=3G,prealloc=on,prealloc-threads=1") +
                           Arguments{"-pidfile", Path("pid")});
    // The memory's fd shows that allocating has begun; it takes a good while from there.
    while (monitor.running() && GuestMemfdsOf(monitor.pid()).empty()) ::usleep(1000);
    ASSERT_TRUE(monitor.Signal(signal));
    EXPECT_ENDS(monitor, 1);
    EXPECT_THAT(monitor.errors(), HasSubstr("interrupted while preallocating 'ram0'"));
    EXPECT_FALSE(std::filesystem::exists(Path("pid")));
  }
}

}  // namespace
}  // namespace holdfast::test
