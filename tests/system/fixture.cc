// SPDX-License-Identifier: Apache-2.0
#include "system/fixture.h"

#include <holdfast/capabilities.h>
#include <holdfast/kvm_system.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "support/guest_vm.h"

namespace holdfast::test {

Arguments operator+(Arguments left, const Arguments& right) {
  left.insert(left.end(), right.begin(), right.end());
  return left;
}

::testing::AssertionResult EndsWith(const char*, const char*, MonitorProcess& monitor, int status) {
  const auto exit = monitor.WaitForExit();
  if (exit && exit->signal == 0 && exit->status == status) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "should have ended with status " << status << "\n"
                                       << monitor.Describe();
}

bool WaitForFile(const std::string& path) {
  constexpr int kTries = 300'000;
  for (int i = 0; i < kTries && !std::filesystem::exists(path); ++i) ::usleep(1000);
  return std::filesystem::exists(path);
}

std::string ReadAll(const std::string& path) {
  std::ostringstream content;
  content << std::ifstream(path, std::ios::binary).rdbuf();
  return content.str();
}

namespace {

// How often `wanted` stands in `text` once the monitor's prompts are taken out.
int CountWithoutPrompts(std::string text, std::string_view wanted) {
  for (std::size_t at = 0; (at = text.find(kPrompt, at)) != std::string::npos;)
    text.erase(at, kPrompt.size());
  int count = 0;
  for (std::size_t at = 0; (at = text.find(wanted, at)) != std::string::npos; at += wanted.size())
    ++count;
  return count;
}

}  // namespace

bool SaysTwice(MonitorProcess& monitor, std::string_view text) {
  constexpr double kPiece = 0.1;
  const double limit = ScaledSeconds(MonitorProcess::kLong);
  for (double waited = 0; waited < limit && CountWithoutPrompts(monitor.output(), text) < 2;
       waited += kPiece) {
    monitor.ReadFor(kPiece);
  }
  return CountWithoutPrompts(monitor.output(), text) == 2;
}

SystemTest::SystemTest() {
  std::string name = (std::filesystem::temp_directory_path() / "holdfast-test-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) ADD_FAILURE() << "mkdtemp " << name;
  folder_ = name;
}

SystemTest::~SystemTest() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

std::string SystemTest::MakeFile(std::string_view name, std::string_view content) const {
  std::ofstream(Path(name), std::ios::binary) << content;
  return Path(name);
}

void NativeTest::SetUp() {
  const auto system = kvm::System::Open();
  if (!system) GTEST_SKIP() << system.error().ToString();
  const auto capabilities = kvm::Capabilities::Detect(*system);
  if (!capabilities || !capabilities->CanRunOnGuestMemfd())
    GTEST_SKIP() << "this KVM cannot run guests on guest_memfd";
}

Arguments NativeTest::Hello(std::string_view commands) const {
  Arguments arguments = {"-m", "32M", "-kernel", HelloPath(), "-nographic"};
  if (!commands.empty()) arguments = arguments + Arguments{"-append", std::string(commands)};
  return arguments;
}

std::string HelloPath() {
  if (const char* folder = std::getenv("HOLDFAST_GUESTS"))
    return std::string(folder) + "/hello.elf";
  const auto self = std::filesystem::read_symlink("/proc/self/exe");
  return (self.parent_path().parent_path() / "guests" / "hello.elf").string();
}

std::string CtrlA(char key) {
  return std::string(kCtrlA) + key;
}

std::string RunCommand(MonitorProcess& monitor, std::string_view command) {
  monitor.Send(std::string(command) + "\n");
  const std::size_t before = monitor.output().size() - monitor.unread().size();
  EXPECT_TEXT(monitor, kPrompt) << "after '" << command << "'";
  return monitor.output().substr(before);
}

}  // namespace holdfast::test
