// SPDX-License-Identifier: Apache-2.0
// The benchmarks of disks and networks, run in the lab: Holdfast and QEMU in turn, same kernel,
// image and options.
//   device_bench ROUNDS KERNEL INITRD [NAME]     NAME: only benchmarks whose name starts so
// DEBIAN in the environment names the disk with a Debian system for boot_to_login.
// Prints one JSON object a line: name, value, unit, baseline, baseline_value, ratio (medians).
#include <fmt/format.h>
#include <holdfast/units.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <fstream>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/base64.h"
#include "net_peer.h"
#include "process.h"
#include "report.h"

namespace holdfast::bench {
namespace {

using std::chrono::duration;
using std::chrono::seconds;
using std::chrono::steady_clock;
using Command = std::vector<std::string>;

constexpr seconds kLimit{240};
constexpr const char* kDisk = "/tmp/bench-disk";
constexpr std::uint64_t kDiskBytes = 64 * kMiB;
constexpr int kAttempts = 5;
constexpr int kMostRounds = 3;  // each is a boot
constexpr std::uint64_t kRam = 512 * kMiB;
// In the lab a packet takes milliseconds: enough of them for a ratio, and not minutes for a value.
constexpr std::uint64_t kStreamBytes = 4 * kMiB;
constexpr int kPings = 100;
constexpr const char* kTapScript = "/tmp/bench-ifup";
constexpr const char* kTapHost = "10.78.0.1";
constexpr const char* kOurs = "holdfast";
constexpr const char* kTheirs = "qemu-system-x86_64";

struct Guest {
  std::string kernel;
  std::string initrd;
};

constexpr const char* kUserNetwork = "user,id=n0";

// A guest with a disk and a network that runs `words`.
Command Line(const char* monitor, const Guest& guest, const std::string& words,
             const std::string& disk, const std::string& network = kUserNetwork) {
  return {monitor,
          "-M",
          "q35",
          "-accel",
          "kvm",
          "-cpu",
          "host",
          "-m",
          "512M",
          "-kernel",
          guest.kernel,
          "-initrd",
          guest.initrd,
          "-append",
          "console=ttyS0 quiet hf.do=none " + words,
          "-nodefaults",
          "-display",
          "none",
          "-serial",
          "stdio",
          "-no-reboot",
          "-drive",
          fmt::format("file={},if=none,id=d0,format=raw,cache=none", disk),
          "-device",
          "virtio-blk-pci,drive=d0,disable-legacy=on",
          "-netdev",
          network,
          "-device",
          "virtio-net-pci,netdev=n0,disable-legacy=on"};
}

// What the guest does in one boot, each by its name; `before` is not measured.
struct Work {
  std::string name, shell;
};

std::string Script(const std::vector<Work>& works, const std::string& before = ":") {
  std::string script = before + "\n";
  for (std::size_t i = 0; i < works.size(); ++i)
    script +=
        fmt::format("echo hf: begin={0}.\n{1} 2>/dev/null\necho hf: end={0}.\n", i, works[i].shell);
  return "hf.end=wait hf.sh=" + EncodeBase64(std::as_bytes(std::span(script)));
}

// User and system time of a process, guest included.
Result<double> CpuSeconds(pid_t pid) {
  std::ifstream file(fmt::format("/proc/{}/stat", pid));
  std::string text;
  std::getline(file, text);
  const std::size_t name_end = text.rfind(')');
  unsigned long user = 0;
  unsigned long system = 0;
  if (name_end == std::string::npos ||
      std::sscanf(text.c_str() + name_end + 1,
                  " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) != 2)
    return Fail(Errc::kSystem, fmt::format("/proc/{}/stat cannot be read", pid));
  return static_cast<double>(user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

// A guest of QEMU's that the lab's emulation has stopped (docs/lab.md, "When the emulation errs")
// says nothing about either monitor: it is measured again.
template <typename Work>
auto Surely(const Work& work) -> decltype(work()) {
  for (int attempt = 1; attempt < kAttempts; ++attempt) {
    auto value = work();
    if (value || value.error().code() != Errc::kUnsupported) return value;
    std::fputs("device_bench: KVM in the lab stopped QEMU's guest; once more\n", stderr);
  }
  return work();
}

// Seconds of each of a boot's `count` works, by the clock and of the process's CPU time.
struct Times {
  double clock = 0;
  double cpu = 0;
};
Result<std::vector<Times>> TimesOf(const Command& command, std::size_t count) {
  HF_TRY(Process process, Process::Start(command, Process::Watch::kOutput));
  std::vector<Times> times;
  for (std::size_t i = 0; i < count; ++i) {
    HF_TRY_STATUS(process.WaitForText(fmt::format("hf: begin={}.", i), kLimit));
    const auto begin = steady_clock::now();
    HF_TRY(const double cpu_begin, CpuSeconds(process.pid()));
    HF_TRY_STATUS(process.WaitForText(fmt::format("hf: end={}.", i), kLimit));
    const auto end = steady_clock::now();
    HF_TRY(const double cpu_end, CpuSeconds(process.pid()));
    times.push_back({.clock = duration<double>(end - begin).count(), .cpu = cpu_end - cpu_begin});
  }
  return times;
}

// One side of the comparison: each boot measures all works, both ways.
class Measured {
 public:
  Measured(Command command, std::size_t works) : command_(std::move(command)), times_(works) {}
  Result<double> Clock(std::size_t work) { return Next(work, &Series::clock); }
  Result<double> Cpu(std::size_t work) { return Next(work, &Series::cpu); }

 private:
  struct Series {  // of boots that have not been told yet
    std::deque<double> clock, cpu;
  };
  Result<double> Next(std::size_t work, std::deque<double> Series::* which) {
    std::deque<double>& values = times_[work].*which;
    if (values.empty()) {
      HF_TRY(const auto boot, Surely([this] { return TimesOf(command_, times_.size()); }));
      for (std::size_t i = 0; i < boot.size(); ++i) {
        times_[i].clock.push_back(boot[i].clock);
        times_[i].cpu.push_back(boot[i].cpu);
      }
    }
    const double value = values.front();
    values.pop_front();
    return value;
  }

  const Command command_;
  std::vector<Series> times_;  // of each work
};

// `line` makes the command line of a monitor that runs a script.
template <typename Line>
void CompareWorks(Report& report, std::vector<Work> works, int rounds, const std::string& before,
                  const Line& line) {
  std::erase_if(works, [&](const Work& work) { return !report.Wants(work.name); });
  if (works.empty()) return;
  Measured our(line(kOurs, Script(works, before)), works.size());
  Measured their(line(kTheirs, Script(works, before)), works.size());
  for (std::size_t i = 0; i < works.size(); ++i) {
    report.Compare(
        works[i].name, "s", "qemu q35", [&] { return our.Clock(i); },
        [&] { return their.Clock(i); }, rounds);
    report.Compare(
        works[i].name + "/cpu", "s", "qemu q35", [&] { return our.Cpu(i); },
        [&] { return their.Cpu(i); }, rounds);
  }
}

Result<double> Overhead(const Command& command) {
  HF_TRY(Process process, Process::Start(command, Process::Watch::kOutput));
  HF_TRY_STATUS(process.WaitForText("hf: end=", kLimit));
  HF_TRY(const Memory memory, ResidentMemory(process.pid(), kRam));
  return static_cast<double>(memory.other) / static_cast<double>(kMiB);
}

Result<double> BootToLogin(const Command& command) {
  HF_TRY(Process process, Process::Start(command, Process::Watch::kOutput));
  HF_TRY_STATUS(process.WaitForText("login:", kLimit));
  return duration<double>(steady_clock::now() - process.started()).count();
}

bool MakeDisk() {
  std::ofstream file(kDisk, std::ios::binary);
  const std::string part(kMiB, '\x5a');
  for (std::uint64_t at = 0; at < kDiskBytes; at += kMiB) file << part;
  return file.good();
}

// What QEMU and Holdfast alike run when the tap is there.
bool MakeTapScript() {
  std::ofstream(kTapScript) << fmt::format(
      "#!/bin/sh\nip addr add {}/24 dev $1\nip link set $1 up\n", kTapHost);
  return ::chmod(kTapScript, 0755) == 0;
}

// TCP both ways and round trips, over the same back ends for both monitors.
void RunNetwork(Report& report, int rounds, const Guest& guest) {
  const auto peer = NetPeer::Start(kStreamBytes);
  if (!peer || !MakeTapScript()) {
    std::fputs("device_bench: no peer for the network\n", stderr);
    return;
  }
  const std::string tap = fmt::format("tap,id=n0,script={},downscript=no", kTapScript);
  const std::string own_address = "ip addr add 10.78.0.2/24 dev eth0; ip link set eth0 up";
  const struct {
    const char* name;
    std::string netdev, host, before;
  } backends[] = {{"user", kUserNetwork, "10.0.2.2", "hf-dhcp eth0"},
                  {"tap", tap, kTapHost, own_address},
                  {"vhost", tap + ",vhost=on", kTapHost, own_address}};
  for (const auto& backend : backends) {
    const auto named = [&](const char* work) {
      return fmt::format("net/{}_{}", work, backend.name);
    };
    // The link may take a moment: the first answer says that it is there.
    const std::string before = fmt::format("{}; until ping -c 1 -W 1 {} >/dev/null; do :; done",
                                           backend.before, backend.host);
    CompareWorks(
        report,
        {{named("send"), fmt::format("dd if=/dev/zero bs=64k count={} | nc {} {}",
                                     kStreamBytes / 65536, backend.host, (*peer)->sink_port())},
         {named("receive"),
          fmt::format("nc {} {} </dev/null >/dev/null", backend.host, (*peer)->source_port())},
         {named("ping"), fmt::format("ping -A -q -c {} {} >/dev/null", kPings, backend.host)}},
        rounds, before, [&](const char* monitor, const std::string& script) {
          return Line(monitor, guest, script, kDisk, backend.netdev);
        });
  }
}

void Run(Report& report, int rounds, const Guest& guest) {
  CompareWorks(report,
               {{"blk/read_1M", "dd if=/dev/vda of=/dev/null bs=1M iflag=direct"},
                {"blk/write_1M", "dd if=/dev/zero of=/dev/vda bs=1M count=64 oflag=direct"},
                {"blk/read_4k", "dd if=/dev/vda of=/dev/null bs=4k count=2048 iflag=direct"},
                {"blk/write_4k", "dd if=/dev/zero of=/dev/vda bs=4k count=2048 oflag=direct"}},
               rounds, ":", [&](const char* monitor, const std::string& script) {
                 return Line(monitor, guest, script, kDisk);
               });
  RunNetwork(report, rounds, guest);
  const auto overhead = [&](const char* monitor) {
    return [command = Line(monitor, guest, Script({{"", "hf-dhcp eth0; cat /dev/vda >/dev/null"}}),
                           kDisk)] { return Surely([&] { return Overhead(command); }); };
  };
  report.Compare("overhead_devices", "MiB", "qemu q35", overhead(kOurs), overhead(kTheirs), rounds);
  if (const char* debian = std::getenv("DEBIAN")) {
    const auto boot = [&](const char* monitor) {
      return [command = Line(monitor, guest, "hf.root=/dev/vda systemd.show_status=0", debian)] {
        return Surely([&] { return BootToLogin(command); });
      };
    };
    report.Compare("boot_to_login", "s", "qemu q35", boot(kOurs), boot(kTheirs), rounds);
  }
}

}  // namespace
}  // namespace holdfast::bench

int main(int argc, char** argv) {
  const int rounds = argc == 4 || argc == 5 ? std::atoi(argv[1]) : 0;
  if (rounds < 1) {
    std::fputs("usage: device_bench ROUNDS KERNEL INITRD [NAME]\n", stderr);
    return 1;
  }
  if (!holdfast::bench::MakeDisk()) {
    std::perror("device_bench: /tmp/bench-disk");
    return 1;
  }
  holdfast::bench::Report report("device_bench", rounds, argc == 5 ? argv[4] : "");
  holdfast::bench::Run(report, std::min(rounds, holdfast::bench::kMostRounds), {argv[2], argv[3]});
  return report.exit_status();
}
