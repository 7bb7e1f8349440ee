// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/capabilities.h>
#include <holdfast/kvm_system.h>
#include <signal.h>

#include <array>
#include <bit>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "system/fixture.h"

namespace holdfast::test {

/// Snapshots of a guest that writes all its memory over and over and checks what it finds there
/// (guests/pattern.cc).
class NativeSnapshot : public NativeTest {
 protected:
  // With so many MiB of its 32.
  Arguments Guest(const Arguments& rest = {}, std::string_view mib = "2") const {
    const auto kernel = std::filesystem::path(HelloPath()).parent_path() / "pattern.elf";
    return Arguments{"-nographic",
                     "-kernel",
                     kernel.string(),
                     "-append",
                     std::string(mib),
                     "-m",
                     "32M",
                     "-qmp",
                     fmt::format("unix:{},server=on,wait=off", Socket())} +
           rest;
  }
  std::string Socket() const { return Path("qmp"); }

  struct Outcome {
    std::string output;
    std::string errors;
    int status = -1;
  };
  static Outcome Ctl(const Arguments& line) {
    MonitorProcess ctl(Arguments{"snapshot"} + line, {.program = CtlPath()});
    const auto exit = ctl.WaitForExit();
    EXPECT_TRUE(exit) << ctl.Describe();
    return {ctl.output(), ctl.errors(), exit ? exit->status : -1};
  }
  // What a command of the control protocol answers; a monitor that was just started may not listen
  // yet.
  std::string Qmp(const std::string& command) const { return Qmp(Arguments{command}); }
  std::string Qmp(const Arguments& command) const {
    constexpr int kTries = 1000;
    std::string answer;
    for (int i = 0; i < kTries; ++i) {
      MonitorProcess ctl(Arguments{"qmp", Socket()} + command, {.program = CtlPath()});
      const auto exit = ctl.WaitForExit();
      EXPECT_TRUE(exit) << ctl.Describe();
      answer = ctl.output() + ctl.errors();
      if (answer.find("cannot connect") == std::string::npos) break;
    }
    return answer;
  }
  void Save(const std::string& file, const Arguments& how = {}) const {
    const Outcome outcome = Ctl(Arguments{"create", Socket(), file} + how);
    EXPECT_EQ(outcome.status, 0) << outcome.errors;
    EXPECT_THAT(outcome.output, ::testing::HasSubstr(file + ": "));
  }

  // Whether the guest gets on: two more rounds, no page wrong.
  static void ExpectRight(MonitorProcess& monitor) {
    for (int i = 0; i < 2; ++i) ASSERT_TEXT(monitor, " ok\n");
    EXPECT_THAT(monitor.output(), ::testing::Not(::testing::HasSubstr("WRONG")))
        << monitor.Describe();
  }
  // The guest's own hash of its memory; it stands from then on until it is sent a "g".
  static std::string AskForHash(MonitorProcess& monitor) {
    EXPECT_TRUE(monitor.Send("h"));
    EXPECT_TRUE(monitor.WaitFor("pattern: hash ")) << monitor.Describe();
    const std::size_t at = monitor.output().size() - monitor.unread().size();
    EXPECT_TRUE(monitor.WaitFor("\n")) << monitor.Describe();
    return monitor.output().substr(at, monitor.output().find_first_of("\r\n", at) - at);
  }
  // The same of what the monitor gives out as guest memory.
  std::string HashFromOutside() const {
    EXPECT_THAT(Qmp({"pmemsave", "val=16777216", "size=2097152", "filename=" + Path("memory")}),
                ::testing::Not(::testing::HasSubstr("holdfastctl")));
    std::ifstream file(Path("memory"), std::ios::binary);
    std::uint32_t hash = 2166136261U;
    std::uint32_t count = 0;
    for (std::array<char, 4> bytes{}; file.read(bytes.data(), bytes.size()); ++count)
      hash = (hash ^ std::bit_cast<std::uint32_t>(bytes)) * 16777619U;
    EXPECT_EQ(count, (2U << 20) / 4);
    return std::to_string(hash);
  }
  // Kills the one and starts the other from a file.
  static void Kill(MonitorProcess& monitor) {
    monitor.Signal(SIGKILL);
    ASSERT_TRUE(monitor.WaitForExit());
  }
  void ExpectGoesOn(const std::string& file, const Arguments& rest = {},
                    std::string_view how = "") const {
    MonitorProcess restored(Guest(rest) +
                            Arguments{"-incoming", fmt::format("file:{}{}", file, how)});
    ExpectRight(restored);
    EXPECT_THAT(restored.output(), ::testing::Not(::testing::HasSubstr("start")))
        << restored.Describe();
  }
};

/// On a KVM that emulates the guest's kernel mode a fault inside the emulator cannot be broken off,
/// so this is for one that runs it.
class LinuxPatternSnapshot : public NativeSnapshot {
 protected:
  void SetUp() override {
    NativeSnapshot::SetUp();
    if (IsSkipped()) return;
    const auto system = kvm::System::Open();
    const auto capabilities = kvm::Capabilities::Detect(system.value());
    if (!capabilities || !capabilities->kernel_mode_guests)
      GTEST_SKIP() << "this KVM is para-virtual and emulates kernel mode";
  }
};

}  // namespace holdfast::test
