// SPDX-License-Identifier: Apache-2.0
#include "system/native_migration.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <span>

#include "base/fd_passing.h"

namespace holdfast::test {

using ::testing::HasSubstr;
using ::testing::Not;

Arguments NativeMigration::Guest(const std::string& name, const Arguments& rest) const {
  const auto kernel = std::filesystem::path(HelloPath()).parent_path() / "pattern.elf";
  return Arguments{"-nographic", "-kernel", kernel.string(),
                   "-append",    "8",       "-m",
                   "64M",        "-qmp",    fmt::format("unix:{},server=on,wait=off", Path(name))} +
         rest;
}

Arguments NativeMigration::Waiting(const std::string& name, const Arguments& rest) const {
  return Guest(name, rest + Arguments{"-incoming", Uri()});
}

NativeMigration::Outcome NativeMigration::Ctl(const Arguments& line) {
  MonitorProcess ctl(line, {.program = CtlPath()});
  const auto exit = ctl.WaitForExit();
  EXPECT_TRUE(exit) << ctl.Describe();
  return {ctl.output() + ctl.errors(), exit ? exit->status : -1};
}

std::string NativeMigration::Qmp(const std::string& name, const Arguments& command) const {
  constexpr int kTries = 1000;
  Outcome outcome;
  for (int i = 0; i < kTries; ++i) {
    outcome = Ctl(Arguments{"qmp", Path(name)} + command);
    const std::string not_there = fmt::format("cannot connect to '{}'", Path(name));
    if (outcome.words.find(not_there) == std::string::npos) break;
  }
  return outcome.words;
}

void NativeMigration::WaitUntilItListens(std::string_view socket) const {
  EXPECT_TRUE(WaitForFile(Path(socket))) << "nobody listens at " << socket;
}

std::string NativeMigration::WaitForStatus(const std::string& name,
                                           std::initializer_list<std::string_view> words) const {
  constexpr int kTries = 2000;
  std::string answer;
  for (int i = 0; i < kTries; ++i) {
    answer = Qmp(name, {"query-migrate"});
    for (const std::string_view word : words) {
      if (answer.find(fmt::format("\"status\": \"{}\"", word)) != std::string::npos) return answer;
    }
  }
  return answer;
}

std::string NativeMigration::PassFd(const std::string& name, const UniqueFd& fd) const {
  const UniqueFd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  Path(name).copy(address.sun_path, sizeof address.sun_path - 1);
  EXPECT_EQ(::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
            0);
  constexpr std::string_view kText = R"({"execute": "qmp_capabilities"})"
                                     R"({"execute": "getfd", "arguments": {"fdname": "wire"}})";
  const int number = fd.get();
  EXPECT_EQ(SendWithFds(client.get(), std::as_bytes(std::span(kText)), std::span(&number, 1), 0),
            static_cast<ssize_t>(kText.size()));
  ::shutdown(client.get(), SHUT_WR);
  // It hangs up when all is answered.
  std::string answers;
  std::array<char, 4096> some{};
  for (ssize_t got = 1; got > 0;) {
    got = ::recv(client.get(), some.data(), some.size(), 0);
    if (got > 0) answers.append(some.data(), static_cast<std::size_t>(got));
  }
  return answers.substr(std::min(answers.rfind("{\"return"), answers.size()));
}

void NativeMigration::Enable(const std::string& name,
                             std::initializer_list<std::string_view> capabilities) const {
  for (const std::string_view capability : capabilities) {
    const std::string list =
        fmt::format(R"(capabilities=[{{"capability":"{}","state":true}}])", capability);
    EXPECT_EQ(Qmp(name, {"migrate-set-capabilities", list}), "{}\n");
  }
}

void NativeMigration::Move(const std::string& from, const Arguments& how) const {
  WaitUntilItListens();
  const Outcome outcome = Ctl(Arguments{"migrate", Path(from), Uri()} + how);
  EXPECT_EQ(outcome.status, 0) << outcome.words;
}

void NativeMigration::ExpectRight(MonitorProcess& monitor) {
  for (int i = 0; i < 2; ++i) ASSERT_TEXT(monitor, " ok\n");
  EXPECT_THAT(monitor.output(), Not(HasSubstr("WRONG"))) << monitor.Describe();
}

void NativeMigration::ExpectStands(const std::string& name) const {
  EXPECT_THAT(Qmp(name, {"query-status"}), HasSubstr("\"running\": false"));
}

}  // namespace holdfast::test
