// SPDX-License-Identifier: Apache-2.0
// The boot benchmarks, run in the lab: Holdfast and QEMU in turn, same kernel, initrd and options.
//   boot_bench ROUNDS KERNEL INITRD [NAME]     NAME: only benchmarks whose name starts so
// Prints one JSON object a line: name, value, unit, baseline, baseline_value, ratio (medians).
#include <fmt/format.h>
#include <holdfast/units.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "process.h"
#include "report.h"

namespace holdfast::bench {
namespace {

using std::chrono::duration;
using std::chrono::seconds;
using std::chrono::steady_clock;
constexpr seconds kLimit{180};
constexpr const char* kInitLine = "holdfast-init: up";
constexpr unsigned kPrintBytes = 32 * 1024;
constexpr int kMemoryRounds = 3;  // memory hardly varies

struct Guest {
  std::string kernel;
  std::string initrd;
};

using Command = std::vector<std::string>;

Command Append(Command command, const Guest& guest, const std::string& ram,
               const std::string& words) {
  for (const std::string& word :
       {std::string("-m"), ram, std::string("-kernel"), guest.kernel, std::string("-initrd"),
        guest.initrd, std::string("-append"), "console=ttyS0 quiet " + words,
        std::string("-nodefaults"), std::string("-display"), std::string("none"),
        std::string("-serial"), std::string("stdio"), std::string("-no-reboot")}) {
    command.push_back(word);
  }
  return command;
}
Command Holdfast() {
  return {"holdfast", "-M", "q35", "-accel", "kvm", "-cpu", "host"};
}
Command Qemu(const std::string& machine) {
  return {"qemu-system-x86_64", "-M", machine, "-accel", "kvm", "-cpu", "host"};
}

Result<double> StartupCpu(const Command& command) {
  HF_TRY(const Process process, Process::Start(command, Process::Watch::kFirstRun));
  HF_TRY(const auto time, process.CpuTimeAtFirstRun(kLimit));
  return duration<double, std::milli>(time).count();
}

Result<double> BootToInit(const Command& command) {
  HF_TRY(Process process, Process::Start(command, Process::Watch::kOutput));
  HF_TRY_STATUS(process.WaitForText(kInitLine, kLimit));
  return duration<double>(steady_clock::now() - process.started()).count();
}

// From the first to the last of kPrintBytes on the serial console. Small, because in the lab each
// byte costs two exits of a nested guest.
Result<double> ConsolePrint(const Command& command) {
  HF_TRY(Process process, Process::Start(command, Process::Watch::kOutput));
  HF_TRY_STATUS(process.WaitForText("hf: print begin", kLimit));
  const auto begin = steady_clock::now();
  HF_TRY_STATUS(process.WaitForText("hf: print end", kLimit));
  return duration<double>(steady_clock::now() - begin).count();
}

Result<double> Overhead(const Command& command, std::uint64_t ram) {
  HF_TRY(Process process, Process::Start(command, Process::Watch::kOutput));
  HF_TRY_STATUS(process.WaitForText(kInitLine, kLimit));
  HF_TRY(const Memory memory, ResidentMemory(process.pid(), ram));
  return static_cast<double>(memory.other) / static_cast<double>(kMiB);
}

void Run(Report& report, int rounds, const Guest& guest) {
  const auto ours = [&](const std::string& ram) {
    return Append(Holdfast(), guest, ram, "hf.do=none hf.end=wait");
  };
  const auto theirs = [&](const std::string& machine, const std::string& ram) {
    return Append(Qemu(machine), guest, ram, "hf.do=none hf.end=wait");
  };
  const auto of = [](const auto& measure, const Command& command) {
    return [measure, command] { return measure(command); };
  };
  report.Compare("startup_cpu", "ms", "qemu q35", of(StartupCpu, ours("512M")),
                 of(StartupCpu, theirs("q35", "512M")));
  for (const std::string machine : {"q35", "microvm"}) {
    report.Compare("boot_to_init/" + machine, "s", "qemu " + machine, of(BootToInit, ours("512M")),
                   of(BootToInit, theirs(machine, "512M")));
  }
  const std::string print = fmt::format("hf.do=print10m hf.bytes={} hf.end=wait", kPrintBytes);
  report.Compare("console_print", "s", "qemu q35",
                 of(ConsolePrint, Append(Holdfast(), guest, "512M", print)),
                 of(ConsolePrint, Append(Qemu("q35"), guest, "512M", print)));
  for (const auto& [name, ram] : {std::pair{"512M", 512 * kMiB}, std::pair{"4G", 4 * kGiB}}) {
    const auto overhead = [ram = ram](const Command& command) { return Overhead(command, ram); };
    report.Compare(fmt::format("overhead/{}", name), "MiB", "qemu q35", of(overhead, ours(name)),
                   of(overhead, theirs("q35", name)), std::min(rounds, kMemoryRounds));
  }
}

}  // namespace
}  // namespace holdfast::bench

int main(int argc, char** argv) {
  const int rounds = argc == 4 || argc == 5 ? std::atoi(argv[1]) : 0;
  if (rounds < 1) {
    std::fputs("usage: boot_bench ROUNDS KERNEL INITRD [NAME]\n", stderr);
    return 1;
  }
  holdfast::bench::Report report("boot_bench", rounds, argc == 5 ? argv[4] : "");
  holdfast::bench::Run(report, rounds, {argv[2], argv[3]});
  return report.exit_status();
}
