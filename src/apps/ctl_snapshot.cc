// SPDX-License-Identifier: Apache-2.0
// holdfastctl snapshot: taking snapshots of a running virtual machine, and what can be done with
// the files.
#include <fmt/format.h>
#include <holdfast/units.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "apps/ctl_arguments.h"
#include "apps/qmp_client.h"
#include "migration/snapshot_load.h"
#include "migration/snapshot_reader.h"
#include "migration/snapshot_tools.h"
#include "object/suggest.h"

namespace holdfast::apps {
namespace {

using Json = nlohmann::ordered_json;
using migration::SnapshotChain;

constexpr std::string_view kUsage =
    "holdfastctl snapshot create|load|info|verify|merge|diff|restore …; "
    "holdfastctl snapshot --help tells more";
constexpr std::string_view kJob = "holdfastctl";
// An event says when a job is over; without one it is looked at again after this.
constexpr std::chrono::milliseconds kLook{200};

// Terminal lines that are written over as a job goes on.
class ProgressLine {
 public:
  void Show(std::uint64_t done, std::uint64_t total) {
    if (!terminal_) return;
    fmt::print(stderr, "\r{} of {}\x1b[K", FormatSize(done), FormatSize(total));
    shown_ = true;
  }
  ~ProgressLine() {
    if (shown_) fmt::print(stderr, "\r\x1b[K");
  }
  ProgressLine() = default;
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

 private:
  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  bool shown_ = false;
};

Error Missing(std::string_view what, std::string_view usage) {
  return {Errc::kInvalidArgument, fmt::format("there is no {}", what),
          fmt::format("Write {}.", usage)};
}

// What the monitor is told is a name in its own working directory.
std::string Absolute(const std::string& path) {
  std::error_code error;
  const auto absolute = std::filesystem::absolute(path, error);
  return error ? path : absolute.string();
}

// The first job for which `wanted` is true; null if there is none.
const Json* FindJob(const Json& jobs, const std::function<bool(const Json&)>& wanted) {
  for (const Json& job : jobs) {
    if (job.is_object() && wanted(job)) return &job;
  }
  return nullptr;
}

void ShowJob(ProgressLine& line, const Json& job) {
  line.Show(job.value("current-progress", std::uint64_t{0}),
            job.value("total-progress", std::uint64_t{0}));
}

// A guest whose memory is still being read from a snapshot: there is one job at a time.
Status WaitForRestore(QmpClient& client) {
  ProgressLine line;
  while (true) {
    HF_TRY(const Json jobs, client.Execute("query-jobs"));
    const Json* const restore = FindJob(jobs, [](const Json& job) {
      return job.value("type", "") == "holdfast-snapshot-restore" &&
             job.value("status", "") == "running";
    });
    if (restore == nullptr) return {};
    ShowJob(line, *restore);
    HF_TRY_STATUS(client.NextEvent(kLook));
  }
}

// Runs a job of the monitor to its end. @return its error
Status RunJob(QmpClient& client, std::string_view command, Json arguments) {
  const std::string id = fmt::format("{}-{}", kJob, ::getpid());
  arguments["job-id"] = id;
  HF_TRY_STATUS(WaitForRestore(client));
  HF_TRY_STATUS(client.Execute(command, arguments));
  ProgressLine line;
  while (true) {
    HF_TRY(const Json jobs, client.Execute("query-jobs"));
    const Json* const mine =
        FindJob(jobs, [&](const Json& job) { return job.value("id", "") == id; });
    if (mine == nullptr)
      return Fail(Errc::kMalformed, fmt::format("{} has forgotten the job", client.name()));
    if (mine->value("status", "") == "concluded") {
      const std::string error = mine->value("error", "");
      HF_TRY_STATUS(client.Execute("job-dismiss", Json{{"id", id}}));
      if (!error.empty()) return Fail(Errc::kSystem, Printable(error));
      return {};
    }
    ShowJob(line, *mine);
    HF_TRY_STATUS(client.NextEvent(kLook));
  }
}

Result<std::string> Create(CtlWords words) {
  constexpr std::string_view kCreate =
      "holdfastctl snapshot create SOCKET FILE [--live] [--stop] [--diff PARENT] [--zstd]";
  constexpr CtlOption kOptions[] = {
      {"--live"}, {"--stop"}, {"--diff", "FILE"}, {"--zstd"}, {"--downtime-limit", "300"}};
  HF_TRY(const CtlArguments arguments, ReadCtlArguments(words, kOptions, 2, kCreate));
  if (arguments.words.size() < 2) return Fail(Missing("socket and file", kCreate));
  const std::string path = Absolute(arguments.words[1]);
  Json request = {
      {"path", path}, {"live", arguments.Has("--live")}, {"stop", arguments.Has("--stop")}};
  if (arguments.Has("--zstd")) request["compression"] = "zstd";
  if (arguments.Has("--diff")) request["parent"] = Absolute(arguments.Value("--diff"));
  HF_TRY(const double limit, NumberOption(arguments, "--downtime-limit", 0, 2'000'000, 300));
  request["downtime-limit"] = static_cast<std::int64_t>(limit);
  HF_TRY(QmpClient client, QmpClient::Connect(arguments.words[0]));
  const auto start = std::chrono::steady_clock::now();
  HF_TRY_STATUS(RunJob(client, "holdfast-snapshot-save", std::move(request)));
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  std::error_code error;
  const std::uintmax_t size = std::filesystem::file_size(path, error);
  return error ? fmt::format("{}: {:.1f} s\n", arguments.words[1], took.count())
               : fmt::format("{}: {} in {:.1f} s\n", arguments.words[1], FormatSize(size),
                             took.count());
}

Result<std::string> Load(CtlWords words) {
  constexpr std::string_view kLoad = "holdfastctl snapshot load SOCKET FILE";
  HF_TRY(const CtlArguments arguments, ReadCtlArguments(words, {}, 2, kLoad));
  if (arguments.words.size() < 2) return Fail(Missing("socket and file", kLoad));
  HF_TRY(QmpClient client, QmpClient::Connect(arguments.words[0]));
  HF_TRY_STATUS(
      RunJob(client, "holdfast-snapshot-load", Json{{"path", Absolute(arguments.words[1])}}));
  return std::string();
}

Json InfoJson(const SnapshotChain& chain, std::uint64_t stored) {
  const auto& directory = chain.newest().directory();
  Json json = {{"file", chain.newest().path()},
               {"id", migration::ToString(chain.newest().header().id)},
               {"creator", directory.creator},
               {"created", directory.created},
               {"name", directory.name},
               {"running", directory.running},
               {"command-line", directory.command_line},
               {"size", chain.newest().header().file_size},
               {"memory-stored", stored}};
  json["parents"] = Json::array();
  for (std::size_t i = 1; i < chain.files().size(); ++i)
    json["parents"].push_back(chain.files()[i].path());
  json["memory"] = Json::array();
  for (const auto& block : directory.blocks)
    json["memory"].push_back({{"id", block.id}, {"size", block.size}});
  json["sections"] = Json::array();
  for (const auto& section : directory.sections) {
    json["sections"].push_back(
        {{"name", section.name}, {"version", section.version}, {"size", section.piece.size}});
  }
  return json;
}

Result<std::string> Info(CtlWords words) {
  constexpr std::string_view kInfo = "holdfastctl snapshot info FILE [--json]";
  constexpr CtlOption kOptions[] = {{"--json"}};
  HF_TRY(const CtlArguments arguments, ReadCtlArguments(words, kOptions, 1, kInfo));
  if (arguments.words.empty()) return Fail(Missing("file", kInfo));
  HF_TRY(const SnapshotChain chain, SnapshotChain::Open(arguments.words[0]));
  HF_TRY(const std::uint64_t stored, chain.newest().Stored());
  if (arguments.Has("--json")) {
    return InfoJson(chain, stored).dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  }
  const auto& file = chain.newest();
  const auto& directory = file.directory();
  std::string text = fmt::format("{}: snapshot {} by {}\n", file.path(),
                                 migration::ToString(file.header().id), directory.creator);
  text += fmt::format("  {}, the guest {}; {} of memory in a file of {}\n",
                      directory.name.empty() ? "no name" : directory.name,
                      directory.running ? "ran" : "stood", FormatSize(stored),
                      FormatSize(file.header().file_size));
  for (std::size_t i = 1; i < chain.files().size(); ++i)
    text += fmt::format("  on top of {}\n", chain.files()[i].path());
  for (const auto& block : directory.blocks)
    text += fmt::format("  memory {}: {}\n", block.id, FormatSize(block.size));
  text += fmt::format("  {} sections of state\n  holdfast", directory.sections.size());
  for (const std::string& word : directory.command_line) text += fmt::format(" {}", word);
  return Printable(text + "\n");
}

Result<std::string> Verify(CtlWords words) {
  constexpr std::string_view kVerify = "holdfastctl snapshot verify FILE";
  HF_TRY(const CtlArguments arguments, ReadCtlArguments(words, {}, 1, kVerify));
  if (arguments.words.empty()) return Fail(Missing("file", kVerify));
  HF_TRY(const SnapshotChain chain, SnapshotChain::Open(arguments.words[0]));
  // Sections of parents are of no use and not looked at; their memory is.
  HF_TRY_STATUS(chain.newest().ReadSections());
  migration::Progress progress;
  HF_TRY_STATUS(VerifyMemory(chain, progress));
  return fmt::format("{}: whole, {} of memory in {} {}\n", arguments.words[0],
                     FormatSize(progress.done), chain.files().size(),
                     chain.files().size() == 1 ? "file" : "files");
}

Result<std::string> Merge(CtlWords words) {
  constexpr std::string_view kMerge = "holdfastctl snapshot merge FILE NEW-FILE [--zstd]";
  constexpr CtlOption kOptions[] = {{"--zstd"}};
  HF_TRY(const CtlArguments arguments, ReadCtlArguments(words, kOptions, 2, kMerge));
  if (arguments.words.size() < 2) return Fail(Missing("file and new file", kMerge));
  HF_TRY(const SnapshotChain chain, SnapshotChain::Open(arguments.words[0]));
  migration::Progress progress;
  HF_TRY_STATUS(MergeSnapshot(chain, arguments.words[1], arguments.Has("--zstd"), progress));
  return fmt::format("{}: {} files in one\n", arguments.words[1], chain.files().size());
}

Result<std::string> Diff(CtlWords words) {
  constexpr std::string_view kDiff = "holdfastctl snapshot diff FILE FILE [--json]";
  constexpr CtlOption kOptions[] = {{"--json"}};
  HF_TRY(const CtlArguments arguments, ReadCtlArguments(words, kOptions, 2, kDiff));
  if (arguments.words.size() < 2) return Fail(Missing("second file", kDiff));
  HF_TRY(const SnapshotChain a, SnapshotChain::Open(arguments.words[0]));
  HF_TRY(const SnapshotChain b, SnapshotChain::Open(arguments.words[1]));
  Json list = Json::array();
  std::string text;
  std::uint64_t pages = 0;
  HF_TRY_STATUS(CompareMemory(a, b, [&](const migration::PageRange& range) {
    pages += range.size / kPageSize;
    list.push_back({{"memory", range.block}, {"offset", range.offset}, {"size", range.size}});
    text += fmt::format("{} {:#014x} {}\n", range.block, range.offset, FormatSize(range.size));
  }));
  if (arguments.Has("--json"))
    return list.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  return Printable(text) + fmt::format("{} pages differ\n", pages);
}

// The monitor that took the snapshot, started anew with the words it had and those behind `--`.
Result<std::string> Restore(CtlWords words) {
  constexpr std::string_view kRestore =
      "holdfastctl snapshot restore FILE [--prefault] [-- options of holdfast]";
  CtlWords own = words;
  CtlWords more;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (std::string_view(words[i]) != "--") continue;
    own = words.first(i);
    more = words.subspan(i + 1);
    break;
  }
  constexpr CtlOption kOptions[] = {{"--prefault"}};
  HF_TRY(const CtlArguments arguments, ReadCtlArguments(own, kOptions, 1, kRestore));
  if (arguments.words.empty()) return Fail(Missing("file", kRestore));
  HF_TRY(const SnapshotChain chain, SnapshotChain::Open(arguments.words[0]));
  std::vector<std::string> line = {"holdfast"};
  const auto& saved = chain.newest().directory().command_line;
  for (std::size_t i = 0; i < saved.size(); ++i) {
    // A machine that was itself restored goes on from the newer snapshot.
    if (saved[i] == "-incoming" || saved[i] == "-loadvm" || saved[i] == "--incoming" ||
        saved[i] == "--loadvm") {
      ++i;
      continue;
    }
    line.push_back(saved[i]);
  }
  line.insert(line.end(), more.begin(), more.end());
  std::string path;
  for (const char c : arguments.words[0]) path.append(c == ',' ? 2 : 1, c);
  line.insert(line.end(),
              {"-incoming",
               fmt::format("file:{}{}", path, arguments.Has("--prefault") ? ",prefault=on" : "")});
  std::vector<char*> argv;
  for (std::string& word : line) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::error_code error;
  // The monitor beside this program, else the one on the path.
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) (void)::execv((self.parent_path() / "holdfast").c_str(), argv.data());
  (void)::execvp("holdfast", argv.data());
  return FailErrno("holdfast cannot be started");
}

struct Verb {
  std::string_view name;
  Result<std::string> (*run)(CtlWords words);
};
constexpr Verb kVerbs[] = {{"create", Create},  {"load", Load},   {"info", Info},
                           {"verify", Verify},  {"merge", Merge}, {"diff", Diff},
                           {"restore", Restore}};

Result<std::string> Run(CtlWords words) {
  if (words.empty()) return Fail(Missing("verb", kUsage));
  const std::string_view name = words[0];
  std::vector<std::string_view> names;
  for (const Verb& verb : kVerbs) {
    if (verb.name == name) return verb.run(words.subspan(1));
    names.push_back(verb.name);
  }
  const std::string_view nearest = object::Nearest(name, names);
  return Fail(Errc::kInvalidArgument, fmt::format("invalid verb '{}'", name),
              nearest.empty() ? fmt::format("Write {}.", kUsage)
                              : fmt::format("Did you mean {}?", nearest));
}

}  // namespace

CtlOutcome RunCtlSnapshot(CtlWords words) {
  Result<std::string> text = Run(words);
  if (!text) return CtlFailure("snapshot", text.error());
  return {.output = std::move(*text), .error = {}, .exit_status = EXIT_SUCCESS};
}

}  // namespace holdfast::apps
