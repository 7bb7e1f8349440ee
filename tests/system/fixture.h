// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "system/monitor_process.h"

namespace holdfast::test {

using Arguments = std::vector<std::string>;
/// One list after the other.
Arguments operator+(Arguments left, const Arguments& right);

/// EXPECT_TEXT(monitor, "text"): waits for it on standard output; a failure shows the monitor's
/// command line and what it said instead. Likewise the others.
#define EXPECT_TEXT(monitor, text) EXPECT_TRUE((monitor).WaitFor(text)) << (monitor).Describe()
#define ASSERT_TEXT(monitor, text) ASSERT_TRUE((monitor).WaitFor(text)) << (monitor).Describe()
#define EXPECT_ENDS(monitor, wanted) \
  EXPECT_PRED_FORMAT2(::holdfast::test::EndsWith, monitor, wanted)

::testing::AssertionResult EndsWith(const char* monitor_text, const char* status_text,
                                    MonitorProcess& monitor, int status);

/// A test with a folder of its own that is removed afterwards.
class SystemTest : public ::testing::Test {
 protected:
  SystemTest();
  ~SystemTest() override;

  std::string Path(std::string_view name) const { return (folder_ / name).string(); }
  /// Writes a file into the folder and returns its path.
  std::string MakeFile(std::string_view name, std::string_view content) const;

 private:
  std::filesystem::path folder_;
};

/// Tests whose guest is guests/hello.elf: they need guest_memfd, but no KVM that runs a stock
/// kernel.
class NativeTest : public SystemTest {
 protected:
  void SetUp() override;
  /// The line for hello with these commands (guests/hello_pvh.S): 32 MiB, serial and monitor on
  /// standard input and output.
  Arguments Hello(std::string_view commands) const;
};

/// Lets hello's exit status become the monitor's.
inline const Arguments kDebugExit = {"-device", "isa-debug-exit"};

/// Waits until a file is there: a socket that somebody listens on. @return whether it came in time
bool WaitForFile(const std::string& path);
/// The content of a file; empty if there is none.
std::string ReadAll(const std::string& path);

/// Path of hello.elf: in HOLDFAST_GUESTS, by default ../guests beside the folder of the tests.
std::string HelloPath();

inline constexpr std::string_view kHelloLine = "hello from ring 0";
inline constexpr std::string_view kPrompt = "(holdfast) ";
inline constexpr std::string_view kCtrlA = "\x01";

/// "Ctrl-a `key`" of the console multiplexer.
std::string CtrlA(char key);

/// Types a command at the monitor prompt and waits for the next prompt.
/// @return what it printed
std::string RunCommand(MonitorProcess& monitor, std::string_view command);

/// Waits until the guest has said `text` a second time. The prompt shares the stream with the guest
/// and may come back in the middle of a line. @return whether it has said it twice, no more
bool SaysTwice(MonitorProcess& monitor, std::string_view text);

}  // namespace holdfast::test
