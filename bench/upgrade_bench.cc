// SPDX-License-Identifier: Apache-2.0
// The live upgrade benchmarks: how long a guest stands when it goes to another monitor of this
// host, as that one tells.
//   upgrade_bench ROUNDS GUESTS [NAME]     GUESTS: the folder of pattern.elf; NAME: only those that
//                                          start so
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "monitors.h"
#include "process.h"
#include "report.h"

namespace holdfast::bench {
namespace {

constexpr std::chrono::seconds kLimit{300};

struct Guest {
  unsigned mib;   // of RAM
  unsigned used;  // of these, written over and over
};
constexpr Guest kSmall{64, 8};
constexpr Guest kLarge{1024, 256};

using Command = std::vector<std::string>;

Command Monitor(const std::string& guests, const Guest& guest, const std::string& socket) {
  return {"holdfast",
          "-nographic",
          "-nodefaults",
          "-serial",
          "stdio",
          "-kernel",
          guests + "/pattern.elf",
          "-append",
          std::to_string(guest.used),
          "-m",
          fmt::format("{}M", guest.mib),
          "-qmp",
          fmt::format("unix:{},server=on,wait=off", socket)};
}

// As the words of a list in JSON; none of them has a quote.
std::string Quoted(const Command& command) {
  std::string list;
  for (const std::string& word : command)
    list += fmt::format("{}\"{}\"", list.empty() ? "" : ", ", word);
  return fmt::format("[{}]", list);
}

Result<double> Stood(Process& monitor) {
  constexpr std::string_view kWords = "it stood for ";
  HF_TRY_STATUS(monitor.WaitForText(" pages were copied", kLimit));
  const std::size_t at = monitor.text().find(kWords);
  if (at == std::string_view::npos) return Fail(Errc::kSystem, "the monitor does not say how long");
  return std::atof(std::string(monitor.text().substr(at + kWords.size())).c_str());
}

Result<double> Exec(const std::string& guests, const Guest& guest) {
  const Folder folder;
  const std::string socket = folder / "a";
  const Command line = Monitor(guests, guest, socket);
  HF_TRY(Process monitor, Process::Start(line, Process::Watch::kOutput));
  HF_TRY_STATUS(monitor.WaitForText("round 1 ok", kLimit));
  HF_TRY_STATUS(Qmp(socket, fmt::format("migrate-set-parameters mode=cpr-exec "
                                        "'cpr-exec-command={}'",
                                        Quoted(line))));
  HF_TRY_STATUS(Qmp(socket, "migrate uri=file:unused 2>&1"));
  return Stood(monitor);
}

Result<double> Transfer(const std::string& guests, const Guest& guest) {
  const Folder folder;
  const std::string path = folder / "cpr";
  HF_TRY(Process old,
         Process::Start(Monitor(guests, guest, folder / "a"), Process::Watch::kOutput));
  HF_TRY_STATUS(old.WaitForText("round 1 ok", kLimit));
  Command line = Monitor(guests, guest, folder / "b");
  line.insert(line.end(),
              {"-incoming", fmt::format(R"({{"channel-type":"cpr","addr":{{"transport":"socket",)"
                                        R"("type":"unix","path":"{}"}}}})",
                                        path)});
  HF_TRY(Process heir, Process::Start(line, Process::Watch::kOutput));
  // It may not listen yet.
  HF_TRY_STATUS(Qmp(folder / "a", "migrate-set-parameters mode=cpr-transfer"));
  for (int tries = 0; tries < 1000; ++tries) {
    HF_TRY(const std::string said,
           Qmp(folder / "a", fmt::format("migrate uri=unix:{} 2>&1", path)));
    if (said == "{}\n") break;
  }
  return Stood(heir);
}

void Compare(Report& report, const std::string& guests) {
  static constexpr double kAim = 100;
  using Way = Result<double> (*)(const std::string&, const Guest&);
  for (const auto& [name, way] :
       {std::pair<std::string, Way>{"exec", Exec}, {"transfer", Transfer}}) {
    report.Compare(
        fmt::format("upgrade_pause/{}", name), "ms", "aim", [&] { return way(guests, kSmall); },
        [] { return Result<double>(kAim); });
    report.Compare(
        fmt::format("upgrade_pause/{}_1G", name), "ms", "64 MiB",
        [&] { return way(guests, kLarge); }, [&] { return way(guests, kSmall); });
  }
}

}  // namespace
}  // namespace holdfast::bench

int main(int argc, char** argv) {
  const int rounds = argc == 3 || argc == 4 ? std::atoi(argv[1]) : 0;
  if (rounds < 1) {
    std::fputs("usage: upgrade_bench ROUNDS GUESTS [NAME]\n", stderr);
    return 1;
  }
  holdfast::bench::Report report("upgrade_bench", rounds, argc == 4 ? argv[3] : "");
  holdfast::bench::Compare(report, argv[2]);
  return report.exit_status();
}
