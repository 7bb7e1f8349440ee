// SPDX-License-Identifier: Apache-2.0
// holdfastctl clone: several guests that go on from one snapshot, each on its own.
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "apps/clone_line.h"
#include "apps/copy_file.h"
#include "apps/ctl_arguments.h"
#include "apps/qmp_client.h"
#include "base/read_file.h"
#include "migration/snapshot_reader.h"

namespace holdfast::apps {
namespace {

constexpr std::string_view kUsage =
    "holdfastctl clone SNAPSHOT -n COUNT [--dir DIR] [--mac] [--copy-disks] [--prefault] "
    "[-- options of holdfast]";
constexpr double kMost = 1000;
constexpr std::size_t kMostLog = 64 << 10;
// A monitor that has begun to listen says so by an answer; until then it is looked at so often.
constexpr std::chrono::milliseconds kLook{5};

// SIGINT and SIGTERM wait while this exists: whatever was begun is ended before they count.
class HeldSignals {
 public:
  HeldSignals() {
    sigemptyset(&held_);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&held_, signal);
    ::pthread_sigmask(SIG_BLOCK, &held_, &before_);
  }
  ~HeldSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;
  const sigset_t& before() const { return before_; }
  bool pending() const {
    sigset_t now;
    sigemptyset(&now);
    ::sigpending(&now);
    return sigismember(&now, SIGINT) == 1 || sigismember(&now, SIGTERM) == 1 ||
           sigismember(&now, SIGHUP) == 1;
  }

 private:
  sigset_t held_{};
  sigset_t before_{};
};

// One clone with its folder. Unless it is kept, destruction ends it and takes the folder away.
class Clone {
 public:
  // @return an error where there is such a folder already
  static Result<Clone> MakeFolder(const std::string& folder) {
    std::error_code error;
    if (!std::filesystem::create_directory(folder, error)) {
      if (error)
        return Fail(
            Error::FromErrno(fmt::format("cannot make the folder '{}'", folder), error.value()));
      return Fail(Errc::kInvalidArgument, fmt::format("the folder '{}' exists already", folder),
                  "Remove it, or choose another place with --dir.");
    }
    return Clone(folder);
  }
  Clone(Clone&& other) noexcept
      : folder_(std::move(other.folder_)),
        pid_(std::exchange(other.pid_, -1)),
        temporary_(std::exchange(other.temporary_, false)) {}
  Clone& operator=(Clone&&) = delete;
  Clone(const Clone&) = delete;
  Clone& operator=(const Clone&) = delete;
  ~Clone() {
    if (!temporary_) return;
    if (pid_ > 0) {
      // It leads a session of its own, with whatever it has started.
      ::kill(-pid_, SIGKILL);
      ::kill(pid_, SIGKILL);
      while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
      }
    }
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
  }

  Status Start(const std::vector<std::string>& words, const sigset_t& signals);
  // Waits until its monitor answers. @return what it says if it ends instead
  Status WaitUntilReady(const HeldSignals& signals);
  // It stays when this goes.
  void Keep() { temporary_ = false; }

  const std::string& folder() const { return folder_; }
  pid_t pid() const { return pid_; }

 private:
  explicit Clone(std::string folder) : folder_(std::move(folder)) {}
  Error WhyItEnded() const;

  std::string folder_;
  pid_t pid_ = -1;
  bool temporary_ = true;
};

Status Clone::Start(const std::vector<std::string>& words, const sigset_t& signals) {
  std::string program = "holdfast";
  std::error_code error;
  // The monitor beside this program, else the one on the path.
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  const auto beside = self.parent_path() / "holdfast";
  if (!error && ::access(beside.c_str(), X_OK) == 0) program = beside.string();

  std::vector<std::string> line = {program};
  line.insert(line.end(), words.begin(), words.end());
  std::vector<char*> argv;
  for (std::string& word : line) argv.push_back(word.data());
  argv.push_back(nullptr);

  const std::string log = fmt::format("{}/{}", folder_, kCloneLog);
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, log.c_str(),
                                     O_WRONLY | O_CREAT | O_APPEND, 0600);
  ::posix_spawn_file_actions_adddup2(&files, STDOUT_FILENO, STDERR_FILENO);
  posix_spawnattr_t how;
  ::posix_spawnattr_init(&how);
  ::posix_spawnattr_setsigmask(&how, &signals);
  ::posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK);
  const int failed = ::posix_spawnp(&pid_, program.c_str(), &files, &how, argv.data(), ::environ);
  ::posix_spawnattr_destroy(&how);
  ::posix_spawn_file_actions_destroy(&files);
  if (failed == 0) return {};
  pid_ = -1;
  return Fail(Error::FromErrno("holdfast cannot be started", failed));
}

// The last thing it has said, which is the error.
Error Clone::WhyItEnded() const {
  const auto log = ReadWholeFile(fmt::format("{}/{}", folder_, kCloneLog), kMostLog);
  std::string text;
  if (log) text.assign(reinterpret_cast<const char*>(log->data()), log->size());
  while (!text.empty() && text.back() == '\n') text.pop_back();
  const std::size_t line = text.rfind('\n');
  if (line != std::string::npos) text.erase(0, line + 1);
  constexpr std::string_view kSpeaker = "holdfast: ";
  if (text.starts_with(kSpeaker)) text.erase(0, kSpeaker.size());
  return {Errc::kSystem, text.empty() ? "it has ended without a word" : Printable(text)};
}

Status Clone::WaitUntilReady(const HeldSignals& signals) {
  const std::string socket = fmt::format("unix:{}/{}", folder_, kCloneSocket);
  while (true) {
    int status = 0;
    if (::waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      return Fail(WhyItEnded());
    }
    if (signals.pending()) return Fail(Errc::kSystem, "ended by a signal");
    // The monitor greets when all is built and the guest goes on.
    if (QmpClient::Connect(socket)) return {};
    std::this_thread::sleep_for(kLook);
  }
}

struct Request {
  ClonePlan plan;
  std::vector<std::string> names;
};

Result<Request> ReadRequest(CtlWords words) {
  Request request;
  CtlWords own = words;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (std::string_view(words[i]) != "--") continue;
    own = words.first(i);
    request.plan.more.assign(words.begin() + static_cast<std::ptrdiff_t>(i) + 1, words.end());
    break;
  }
  constexpr CtlOption kOptions[] = {
      {"-n", "8"}, {"--dir", "DIR"}, {"--mac"}, {"--copy-disks"}, {"--prefault"}};
  HF_TRY(const CtlArguments arguments, ReadCtlArguments(own, kOptions, 1, kUsage));
  if (arguments.words.empty()) {
    return Fail(Errc::kInvalidArgument, "there is no snapshot", fmt::format("Write {}.", kUsage));
  }
  if (!arguments.Has("-n")) {
    return Fail(Errc::kInvalidArgument, "it is not said how many", "Write -n 8 for eight clones.");
  }
  HF_TRY(const double count, NumberOption(arguments, "-n", 1, kMost, 1));
  if (count != static_cast<double>(static_cast<unsigned>(count))) {
    return Fail(Errc::kInvalidArgument,
                fmt::format("-n does not accept value '{}'", arguments.Value("-n")),
                fmt::format("Write a number from 1 to {}.", kMost));
  }
  ClonePlan& plan = request.plan;
  plan.copy_disks = arguments.Has("--copy-disks");
  plan.prefault = arguments.Has("--prefault");
  plan.new_mac = arguments.Has("--mac");
  std::error_code error;
  const auto snapshot = std::filesystem::absolute(arguments.words[0], error);
  const auto folder = std::filesystem::absolute(arguments.Value("--dir", "."), error);
  if (error) return Fail(Error::FromErrno("there is no current folder", error.value()));
  plan.snapshot = snapshot.string();
  for (unsigned i = 0; i < static_cast<unsigned>(count); ++i) {
    request.names.push_back(fmt::format("clone-{}", i));
    plan.folders.push_back((folder / request.names.back()).lexically_normal().string());
  }
  HF_TRY(const auto chain, migration::SnapshotChain::Open(plan.snapshot));
  plan.saved = chain.newest().directory().command_line;
  return request;
}

Status StartOne(Clone& clone, const CloneLine& line, const HeldSignals& signals) {
  for (const CloneLine::Copy& copy : line.copies) HF_TRY_STATUS(CopyFile(copy.from, copy.to));
  HF_TRY_STATUS(clone.Start(line.words, signals.before()));
  return clone.WaitUntilReady(signals);
}

Result<std::string> Run(CtlWords words) {
  HF_TRY(const Request request, ReadRequest(words));
  HF_TRY(const std::vector<CloneLine> lines, MakeCloneLines(request.plan));
  std::error_code error;
  const auto parent = std::filesystem::path(request.plan.folders[0]).parent_path();
  std::filesystem::create_directories(parent, error);
  if (error) {
    return Fail(Error::FromErrno(fmt::format("cannot make the folder '{}'", parent.string()),
                                 error.value()));
  }
  const HeldSignals signals;
  std::vector<Clone> clones;
  clones.reserve(lines.size());
  for (std::size_t i = 0; i < lines.size(); ++i) {
    HF_TRY(Clone made, Clone::MakeFolder(request.plan.folders[i]));
    clones.push_back(std::move(made));
    if (Status started = StartOne(clones.back(), lines[i], signals); !started) {
      return Fail(std::move(started).error().Wrap(fmt::format("clone {} does not start", i)));
    }
  }
  std::string text;
  for (std::size_t i = 0; i < clones.size(); ++i) {
    clones[i].Keep();
    text += fmt::format("{}: pid {}, {}/{}\n", request.names[i], clones[i].pid(),
                        clones[i].folder(), kCloneSocket);
  }
  return text;
}

}  // namespace

CtlOutcome RunCtlClone(CtlWords words) {
  Result<std::string> text = Run(words);
  if (!text) return CtlFailure("clone", text.error());
  return {.output = std::move(*text), .error = {}, .exit_status = EXIT_SUCCESS};
}

}  // namespace holdfast::apps
