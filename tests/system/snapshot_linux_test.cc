// SPDX-License-Identifier: Apache-2.0
// A Linux guest under load that is saved, killed and restored, or moves to another monitor: what it
// does with disk, network and memory goes on, its clock stays sane.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <holdfast/units.h>
#include <signal.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "system/device_guest.h"

namespace holdfast::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class LinuxSnapshot : public LinuxDeviceTest {
 protected:
  // Files are written and checked, pages fetched, the clock watched; a line for each round. What
  // goes wrong says so.
  static std::string Load(std::uint16_t port) {
    return fmt::format(
        "hf-dhcp eth0\n"
        "mke2fs /dev/vda >/dev/null && mkdir /m && mount -t ext2 /dev/vda /m || echo hf: "
        "bad=mount\n"
        "n=0; last=$(cut -d. -f1 /proc/uptime)\n"
        "while [ $n -lt 100000 ]; do\n"
        "  dd if=/dev/urandom of=/m/f bs=64k count=4 2>/dev/null; sync\n"
        "  md5sum /m/f >/tmp/sum; echo 3 >/proc/sys/vm/drop_caches\n"
        "  md5sum -c /tmp/sum >/dev/null 2>&1 || echo hf: bad=file\n"
        "  timeout 8 wget -q -O /tmp/body http://10.0.2.2:{0}/ &&\n"
        "    {{ [ $(wc -c </tmp/body) = {1} ] || echo hf: bad=body; }}\n"
        "  now=$(cut -d. -f1 /proc/uptime)\n"
        "  [ $now -ge $last ] || echo hf: bad=clock; last=$now\n"
        "  n=$((n + 1)); echo \"hf: round=$n.\"\n"
        "done\n",
        port, kBody);
  }
  static constexpr std::size_t kBody = 256 * kKiB;

  Arguments Machine(std::string_view script, const LinuxChoice& choice,
                    const std::string& socket = "qmp") const {
    return Guest(script, choice) +
           Arguments{"-qmp",    fmt::format("unix:{},server=on,wait=off", Path(socket)),
                     "-drive",  fmt::format("file={},if=virtio,format=raw", Path("disk")),
                     "-nic",    "user,model=virtio-net-pci",
                     "-device", "virtio-rng-pci",
                     "-device", "virtio-balloon-pci"};
  }
  void Save(const Arguments& how) const {
    MonitorProcess ctl(Arguments{"snapshot", "create", Path("qmp"), Path("vm.snapshot")} + how,
                       {.program = CtlPath()});
    const auto exit = ctl.WaitForExit(300);
    ASSERT_TRUE(exit) << ctl.Describe();
    ASSERT_EQ(exit->status, 0) << ctl.Describe();
  }
  static void ExpectRounds(MonitorProcess& monitor, int rounds) {
    for (int i = 0; i < rounds; ++i) ASSERT_TEXT(monitor, "hf: round=");
    EXPECT_THAT(monitor.output(), Not(HasSubstr("hf: bad="))) << monitor.Describe();
    for (const char* trouble :
         {"BUG:", "Oops", "I/O error", "rcu_sched self-detected", "Call Trace"})
      EXPECT_THAT(monitor.output(), Not(HasSubstr(trouble))) << monitor.Describe();
  }
  // From one monitor to the next, each time by a snapshot and a kill.
  void Move(const LinuxChoice& choice, const Arguments& how) const {
    const HttpServer server(std::string(kBody, 'x'));
    MakeFile("disk", std::string(8 * kMiB, '\0'));
    const Arguments line = Machine(Load(server.port()), choice);
    auto monitor = std::make_unique<MonitorProcess>(line);
    ASSERT_NO_FATAL_FAILURE(ExpectRounds(*monitor, 1));
    for (int round = 0; round < (LongForm() ? 100 : 1); ++round) {
      // The disk stays as it was when the snapshot was taken: the guest stops there.
      ASSERT_NO_FATAL_FAILURE(Save(how + Arguments{"--stop"}));
      monitor->Signal(SIGKILL);
      ASSERT_TRUE(monitor->WaitForExit());
      monitor = std::make_unique<MonitorProcess>(
          line + Arguments{"-incoming", "file:" + Path("vm.snapshot")});
      ASSERT_NO_FATAL_FAILURE(ExpectRounds(*monitor, 2));
    }
  }
};

class LinuxMigration : public LinuxSnapshot {
 protected:
  // From one monitor to the next, which has the same disk open and gets its lock on the way.
  void Travel(const LinuxChoice& here, const LinuxChoice& there, const Arguments& how) const {
    const HttpServer server(std::string(kBody, 'x'));
    MakeFile("disk", std::string(8 * kMiB, '\0'));
    const std::string script = Load(server.port());
    auto monitor = std::make_unique<MonitorProcess>(Machine(script, here, "0"));
    ASSERT_NO_FATAL_FAILURE(ExpectRounds(*monitor, 1));
    for (int i = 0; i < (LongForm() ? 50 : 1); ++i) {
      auto next = std::make_unique<MonitorProcess>(
          Machine(script, i % 2 == 0 ? there : here, std::to_string(i + 1)) +
          Arguments{"-incoming", "unix:" + Path("wire")});
      ASSERT_TRUE(WaitForFile(Path("wire")));
      MonitorProcess ctl(
          Arguments{"migrate", Path(std::to_string(i)), "unix:" + Path("wire")} + how,
          {.program = CtlPath()});
      const auto exit = ctl.WaitForExit(300);
      ASSERT_TRUE(exit) << ctl.Describe();
      ASSERT_EQ(exit->status, 0) << ctl.Describe() << next->Describe();
      monitor = std::move(next);
      ASSERT_NO_FATAL_FAILURE(ExpectRounds(*monitor, 2));
    }
  }
};

TEST_F(LinuxSnapshot, ALoadedGuestGoesOnAfterItsMonitorWasKilled) {
  Move({.cpus = 1, .ram = 192 * kMiB}, {});
}

TEST_F(LinuxSnapshot, FourCpusOnBoundMemoryGoOnFromALiveOne) {
  Move({.bound = true, .cpus = 4, .ram = 192 * kMiB}, {"--live"});
}

TEST_F(LinuxMigration, ALoadedGuestGoesOnInAnotherMonitor) {
  Travel({.cpus = 1, .ram = 192 * kMiB}, {.cpus = 1, .ram = 192 * kMiB}, {"--channels", "2"});
}

TEST_F(LinuxMigration, ALoadedGuestGoesOnWhileItsPagesFollow) {
  Travel({.cpus = 1, .ram = 192 * kMiB}, {.cpus = 1, .ram = 192 * kMiB}, {"--postcopy"});
}

// The process becomes another monitor, and then another process takes the guest over.
TEST_F(LinuxMigration, ALoadedGuestGoesOnUnderANewMonitorWithItsMemoryWhereItIs) {
  const HttpServer server(std::string(kBody, 'x'));
  MakeFile("disk", std::string(8 * kMiB, '\0'));
  const LinuxChoice choice{.cpus = 2, .ram = 192 * kMiB};
  const std::string script = Load(server.port());
  const Arguments line = Machine(script, choice, "0");
  auto monitor = std::make_unique<MonitorProcess>(line);
  ASSERT_NO_FATAL_FAILURE(ExpectRounds(*monitor, 1));
  const auto qmp = [this](const Arguments& command) {
    MonitorProcess ctl(Arguments{"qmp", Path("0")} + command, {.program = CtlPath()});
    const auto exit = ctl.WaitForExit();
    ASSERT_TRUE(exit && exit->status == 0) << ctl.Describe();
  };
  const nlohmann::json words = Arguments{MonitorPath()} + line;
  qmp({"migrate-set-parameters", "mode=cpr-exec", "cpr-exec-command=" + words.dump()});
  qmp({"migrate", "uri=file:unused"});
  ASSERT_TRUE(monitor->WaitForError("took the guest over from holdfast")) << monitor->Describe();
  ASSERT_NO_FATAL_FAILURE(ExpectRounds(*monitor, 2));

  const nlohmann::json channel = {
      {"channel-type", "cpr"},
      {"addr", {{"transport", "socket"}, {"type", "unix"}, {"path", Path("cpr")}}}};
  auto next = std::make_unique<MonitorProcess>(Machine(script, choice, "1") +
                                               Arguments{"-incoming", channel.dump()});
  ASSERT_TRUE(WaitForFile(Path("cpr")));
  qmp({"migrate-set-parameters", "mode=cpr-transfer"});
  qmp({"migrate", "uri=unix:" + Path("cpr")});
  ASSERT_TRUE(next->WaitForError("took the guest over from holdfast")) << next->Describe();
  monitor.reset();
  ASSERT_NO_FATAL_FAILURE(ExpectRounds(*next, 2));
}

}  // namespace
}  // namespace holdfast::test
