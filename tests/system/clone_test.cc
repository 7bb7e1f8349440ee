// SPDX-License-Identifier: Apache-2.0
// Several guests from one snapshot of a guest that writes all its memory over and over.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/unique_fd.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <set>
#include <thread>

#include "system/fixture.h"

namespace holdfast::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class CloneTest : public NativeTest {
 protected:
  void TearDown() override {
    for (const pid_t pid : pids_) ::kill(pid, SIGKILL);
  }

  // Takes a snapshot of guests/pattern.cc with 2 MiB of its 32, and of these options besides.
  void Save(const Arguments& rest = {}) const {
    const auto kernel = std::filesystem::path(HelloPath()).parent_path() / "pattern.elf";
    MonitorProcess monitor(Arguments{"-nographic", "-kernel", kernel.string(), "-append", "2", "-m",
                                     "32M", "-name", "one", "-device", "vmgenid", "-qmp",
                                     fmt::format("unix:{},server=on,wait=off", Path("qmp"))} +
                           rest);
    ASSERT_TEXT(monitor, "round 2 ok");
    const Outcome saved = Ctl({"snapshot", "create", Path("qmp"), Path("a")});
    ASSERT_EQ(saved.status, 0) << saved.errors;
    monitor.Signal(SIGKILL);
    ASSERT_TRUE(monitor.WaitForExit());
  }

  struct Outcome {
    std::string output;
    std::string errors;
    int status = -1;
  };
  static Outcome Ctl(const Arguments& line) {
    MonitorProcess ctl(line, {.program = CtlPath()});
    const auto exit = ctl.WaitForExit();
    EXPECT_TRUE(exit) << ctl.Describe();
    return {ctl.output(), ctl.errors(), exit ? exit->status : -1};
  }
  Outcome Clone(int count, const Arguments& rest = {}) {
    const Outcome outcome =
        Ctl(Arguments{"clone", Path("a"), "-n", std::to_string(count), "--dir", Path("")} + rest);
    for (int i = 0; i < count; ++i) {
      const std::string pid = ReadAll(Path(fmt::format("clone-{}/pid", i)));
      if (!pid.empty()) pids_.push_back(std::stoi(pid));
    }
    return outcome;
  }
  std::string Of(int number, std::string_view name) const {
    return Path(fmt::format("clone-{}/{}", number, name));
  }
  std::string Qmp(int number, const std::string& command) const {
    const Outcome outcome = Ctl({"qmp", Of(number, "qmp.sock"), command});
    return outcome.output + outcome.errors;
  }
  // Whether the guest on a console socket gets on: two rounds that are right.
  static void ExpectRight(const std::string& console) {
    const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    ASSERT_LT(console.size(), sizeof address.sun_path);
    std::memcpy(address.sun_path, console.c_str(), console.size() + 1);
    ASSERT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    std::string text;
    int rounds = 0;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(120);
    while (rounds < 3 && std::chrono::steady_clock::now() < deadline) {
      pollfd wait{.fd = fd.get(), .events = POLLIN, .revents = 0};
      if (::poll(&wait, 1, 1000) != 1) continue;
      char buffer[256];
      const ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
      if (got <= 0) break;
      text.append(buffer, static_cast<std::size_t>(got));
      rounds = 0;
      for (std::size_t at = text.find(" ok\n"); at != std::string::npos;
           at = text.find(" ok\n", at + 1))
        ++rounds;
    }
    EXPECT_GE(rounds, 3) << text;
    EXPECT_THAT(text, Not(HasSubstr("WRONG")));
  }
  // Clones leave nothing behind that did not start together.
  void ExpectNone(int count) const {
    for (int i = 0; i < count; ++i) EXPECT_FALSE(std::filesystem::exists(Of(i, ""))) << i;
  }

  std::vector<pid_t> pids_;
};

TEST_F(CloneTest, EightGuestsGoOnFromOneSnapshotEachOnItsOwn) {
  ASSERT_NO_FATAL_FAILURE(Save());
  const Outcome outcome = Clone(8);
  ASSERT_EQ(outcome.status, 0) << outcome.errors;
  std::set<std::string> generations;
  for (int i = 0; i < 8; ++i) {
    SCOPED_TRACE(i);
    EXPECT_THAT(outcome.output, HasSubstr(fmt::format("clone-{}: pid ", i)));
    ExpectRight(Of(i, "console.sock"));
    EXPECT_THAT(Qmp(i, "query-name"), HasSubstr(fmt::format("one-{}", i)));
    generations.insert(Qmp(i, "query-vm-generation-id"));
  }
  EXPECT_EQ(generations.size(), 8U);

  // What one writes no other has: they are at other places of their work by now.
  Qmp(0, "stop");
  ExpectRight(Of(1, "console.sock"));
  for (int i = 0; i < 2; ++i)
    EXPECT_EQ(Ctl({"snapshot", "create", Of(i, "qmp.sock"), Of(i, "s")}).status, 0);
  EXPECT_THAT(Ctl({"snapshot", "diff", Of(0, "s"), Of(1, "s")}).output,
              Not(::testing::StartsWith("0 pages")));
  Qmp(0, "cont");
  ExpectRight(Of(0, "console.sock"));
}

TEST_F(CloneTest, AnOptionBehindTheDashesIsEachClonesOwn) {
  ASSERT_NO_FATAL_FAILURE(Save());
  const Outcome outcome = Clone(2, {"--prefault", "--", "-name", "web%n", "-S"});
  ASSERT_EQ(outcome.status, 0) << outcome.errors;
  EXPECT_THAT(Qmp(0, "query-name"), HasSubstr("web0"));
  EXPECT_THAT(Qmp(1, "query-name"), HasSubstr("web1"));
  EXPECT_THAT(Qmp(1, "query-status"), HasSubstr("paused"));
  Qmp(1, "cont");
  ExpectRight(Of(1, "console.sock"));
}

TEST_F(CloneTest, DisksAreCopiedAndNetworkCardsGetNewAddresses) {
  MakeFile("disk.img", std::string(1 << 20, 'd'));
  ASSERT_NO_FATAL_FAILURE(
      Save({"-drive", fmt::format("file={},format=raw,if=virtio", Path("disk.img")), "-netdev",
            "user,id=n", "-device", "virtio-net-pci,netdev=n,mac=52:54:00:aa:bb:cc"}));
  const Outcome refused = Clone(2);
  EXPECT_EQ(refused.status, 1);
  EXPECT_THAT(refused.errors, HasSubstr("disk.img' would be both the saved machine's and clone"));
  EXPECT_THAT(refused.errors, HasSubstr("--copy-disks"));
  ExpectNone(2);

  const Outcome outcome = Clone(2, {"--copy-disks", "--mac"});
  ASSERT_EQ(outcome.status, 0) << outcome.errors;
  std::set<std::string> networks;
  for (int i = 0; i < 2; ++i) {
    ExpectRight(Of(i, "console.sock"));
    EXPECT_EQ(ReadAll(Of(i, "disk0.img")), ReadAll(Path("disk.img")));
    EXPECT_THAT(Qmp(i, "query-block"), HasSubstr(Of(i, "disk0.img")));
    const Outcome network =
        Ctl({"qmp", Of(i, "qmp.sock"), "human-monitor-command", "command-line=info network"});
    EXPECT_THAT(network.output, HasSubstr("macaddr=52:54:"));
    EXPECT_THAT(network.output, Not(HasSubstr("aa:bb:cc")));
    networks.insert(network.output);
  }
  EXPECT_EQ(networks.size(), 2U);
}

TEST_F(CloneTest, WhereOneDoesNotStartNoneStays) {
  ASSERT_NO_FATAL_FAILURE(Save());
  std::filesystem::create_directory(Path("clone-2"));
  const Outcome exists = Clone(3);
  EXPECT_EQ(exists.status, 1);
  EXPECT_THAT(exists.errors, HasSubstr("clone-2' exists already"));
  ExpectNone(2);
  std::filesystem::remove(Path("clone-2"));

  // The third finds no file for its item.
  MakeFile("item0", "0");
  MakeFile("item1", "1");
  const Outcome third = Clone(4, {"--", "-fw_cfg", "opt/x,file=" + Path("item%n")});
  EXPECT_EQ(third.status, 1);
  EXPECT_THAT(third.errors, HasSubstr("clone 2 does not start: "));
  EXPECT_THAT(third.errors, HasSubstr("item2"));
  ExpectNone(4);
}

TEST_F(CloneTest, BadInputIsOneSentence) {
  ASSERT_NO_FATAL_FAILURE(Save());
  const struct {
    Arguments line;
    const char* says;
  } cases[] = {
      {{}, "there is no snapshot"},
      {{Path("a")}, "it is not said how many"},
      {{Path("a"), "-n", "0"}, "-n does not accept value '0'"},
      {{Path("a"), "-n", "1.5"}, "-n does not accept value '1.5'"},
      {{Path("a"), "-n", "1001"}, "Write a number from 1 to 1000"},
      {{Path("a"), "-n"}, "-n requires an argument"},
      {{Path("a"), Path("a"), "-n", "2"}, "invalid argument"},
      {{Path("a"), "-n", "2", "--mac=x"}, "--mac takes no value"},
      {{Path("none"), "-n", "2"}, "No such file"},
      {{Path("a"), "-n", "2", "--", "-bogus"}, "-bogus: invalid option"},
      {{Path("a"), "-n", "2", "--dir", Path("a")}, "cannot make the folder"},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.says);
    const Outcome outcome = Ctl(Arguments{"clone"} + c.line);
    EXPECT_EQ(outcome.status, 1);
    EXPECT_THAT(outcome.errors, HasSubstr(c.says));
    EXPECT_THAT(outcome.errors, ::testing::StartsWith("holdfastctl: clone: "));
  }
}

}  // namespace
}  // namespace holdfast::test
