// SPDX-License-Identifier: Apache-2.0
#include "system/linux_guest.h"

#include <fmt/format.h>
#include <holdfast/capabilities.h>
#include <holdfast/kvm_system.h>
#include <holdfast/units.h>

#include <cstdlib>
#include <sstream>

namespace holdfast::test {
namespace {

std::string Base64(std::string_view bytes) {
  static constexpr std::string_view kDigits =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    unsigned group = 0;
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
    for (std::size_t j = 0; j < 3; ++j)
      group = group << 8 | (j < count ? static_cast<unsigned char>(bytes[i + j]) : 0U);
    for (std::size_t j = 0; j < 4; ++j)
      text += j <= count ? kDigits[group >> (18 - 6 * j) & 63] : '=';
  }
  return text;
}

}  // namespace

void LinuxTest::SetUp() {
  for (const char* name : {"HOLDFAST_KERNEL", "HOLDFAST_VMLINUX", "HOLDFAST_INITRD"})
    if (std::getenv(name) == nullptr) GTEST_SKIP() << name << " names no file";
  const auto system = kvm::System::Open();
  if (!system) GTEST_SKIP() << system.error().ToString();
  const auto capabilities = kvm::Capabilities::Detect(*system);
  if (!capabilities || !capabilities->CanRunOnGuestMemfd())
    GTEST_SKIP() << "this KVM cannot run guests on guest_memfd";
  if (!capabilities->kernel_mode_guests)
    GTEST_SKIP() << "this KVM is para-virtual and runs no stock kernel";
}

Arguments LinuxTest::Line(const LinuxChoice& choice, std::string_view words) const {
  const std::uint64_t mib = (choice.ram != 0 ? choice.ram : 256 * kMiB) / kMiB;
  Arguments line = {"-nographic",
                    "-kernel",
                    std::getenv(choice.pvh ? "HOLDFAST_VMLINUX" : "HOLDFAST_KERNEL"),
                    "-initrd",
                    std::getenv("HOLDFAST_INITRD"),
                    "-append",
                    fmt::format("console=ttyS0 quiet panic=-1 {}", words),
                    "-m",
                    fmt::format("{}M", mib),
                    "-smp",
                    fmt::format("{}", choice.cpus)};
  if (choice.bound) {
    line =
        line + Arguments{"-machine", "q35,memory-backend=ram0", "-object",
                         fmt::format("memory-backend-guest-memfd,id=ram0,size={}M,bind=on", mib)};
  }
  return line;
}

std::string ScriptWord(std::string_view script) {
  return "hf.sh=" + Base64(script);
}

std::map<std::string, std::string> ReadReport(MonitorProcess& monitor) {
  std::map<std::string, std::string> report;
  const std::size_t start = monitor.output().size() - monitor.unread().size();
  EXPECT_TEXT(monitor, "hf: done");
  std::istringstream lines(monitor.output().substr(start));
  for (std::string line; std::getline(lines, line);) {
    while (!line.empty() && line.back() == '\r') line.pop_back();
    const std::size_t equals = line.find('=');
    if (line.starts_with("hf: ") && equals != std::string::npos)
      report[line.substr(4, equals - 4)] = line.substr(equals + 1);
  }
  return report;
}

bool LongForm() {
  const char* value = std::getenv("HOLDFAST_TEST_LONG");
  return value != nullptr && *value != '\0' && std::string_view(value) != "0";
}

}  // namespace holdfast::test
