// SPDX-License-Identifier: Apache-2.0
#include "migration/cpr_exec.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <set>
#include <span>
#include <utility>

#include "base/log.h"
#include "base/read_file.h"
#include "base/write_all.h"

namespace holdfast::migration {
namespace {

constexpr const char* kVariable = "HOLDFAST_TAKEOVER_FD";

// Leaves descriptors open over an exec; closed by it again where there is none.
class LeftOpen {
 public:
  LeftOpen() = default;
  LeftOpen(const LeftOpen&) = delete;
  LeftOpen& operator=(const LeftOpen&) = delete;
  ~LeftOpen() {
    for (const int fd : fds_) static_cast<void>(::fcntl(fd, F_SETFD, FD_CLOEXEC));
  }
  Status Add(int fd, std::string_view name) {
    if (::fcntl(fd, F_SETFD, 0) != 0) return FailErrno(fmt::format("keeping '{}' open", name));
    fds_.push_back(fd);
    return {};
  }

 private:
  std::vector<int> fds_;
};

// The file that a command names, looked for in PATH. Not execvp, which gives a file that is no
// program to a shell, and the guest with it.
Result<std::string> FindProgram(const std::string& name) {
  const auto cannot = [&](int os_errno) {
    return Fail(Error::FromErrno(fmt::format("cannot execute '{}'", name), os_errno)
                    .WithHint("cpr-exec-command names the program of the new monitor first."));
  };
  if (name.find('/') != std::string::npos) {
    if (::access(name.c_str(), X_OK) != 0) return cannot(errno);
    return name;
  }
  const char* const path = std::getenv("PATH");  // NOLINT(concurrency-mt-unsafe): nobody sets it
  std::string_view rest = path == nullptr ? "/usr/bin:/bin" : path;
  for (;;) {
    const std::size_t end = rest.find(':');
    std::string file =
        fmt::format("{}/{}", end == 0 || rest.empty() ? "." : rest.substr(0, end), name);
    if (::access(file.c_str(), X_OK) == 0) return file;
    if (end == std::string_view::npos) return cannot(ENOENT);
    rest.remove_prefix(end + 1);
  }
}

Result<int> ParseFd(std::string_view text) {
  int fd = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), fd);
  if (error != std::errc() || end != text.data() + text.size() || fd < 0 ||
      ::fcntl(fd, F_GETFD) < 0) {
    return Fail(Errc::kInvalidArgument, fmt::format("{}={} is no open descriptor", kVariable, text),
                "Only a monitor that becomes another one sets this variable.");
  }
  return fd;
}

}  // namespace

Result<CprExec> CprExec::Prepare(const Subject& subject, std::vector<std::string> command) {
  if (command.empty() || command.front().empty()) {
    return Fail(Errc::kInvalidArgument, "cpr-exec mode requires setting cpr-exec-command",
                "Set it to the program and its options, as a list of words.");
  }
  HF_TRY_STATUS(CheckCpr(subject));
  if (subject.may_exec) HF_TRY_STATUS(subject.may_exec());
  HF_TRY(std::string program, FindProgram(command.front()));
  return CprExec(subject, std::move(program), std::move(command));
}

Error CprExec::Run() const {
  machine::Machine& machine = subject_.machine;
  const bool ran = machine.running();
  const std::uint64_t stopped_at = CprClock();
  if (ran) machine.Pause(machine::RunState::kSaveVm);
  Status failed = Become(ran ? stopped_at : 0);
  if (ran) {
    if (auto resumed = machine.Resume(); !resumed) log::Error(resumed.error());
  }
  return std::move(failed).error();
}

// As Run(): never without an error.
Status CprExec::Become(std::uint64_t stopped_at) const {
  if (subject_.flush_disks) HF_TRY_STATUS(subject_.flush_disks());
  CprState state{.creator = subject_.creator, .stopped_at = stopped_at};
  HF_TRY(state.sections, subject_.machine.SaveState());
  LeftOpen left_open;
  for (const KeptFd& kept : KeptFds(subject_)) {
    HF_TRY_STATUS(left_open.Add(kept.fd, kept.name));
    state.fds.push_back({kept.name, static_cast<std::uint32_t>(kept.fd)});
  }
  const UniqueFd memfd(::memfd_create("holdfast-state", MFD_CLOEXEC));
  if (!memfd) return FailErrno("a memfd for the machine's state");
  HF_TRY_STATUS(left_open.Add(memfd.get(), "state"));
  HF_TRY_STATUS(
      WriteAll(memfd.get(), EncodeCprState(std::move(state)), "the state for the new monitor"));

  std::vector<std::string> words = command_;
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  std::string variable = fmt::format("{}={}", kVariable, memfd.get());
  std::vector<char*> environment;
  for (char** each = environ; *each != nullptr; ++each) environment.push_back(*each);
  environment.push_back(variable.data());
  environment.push_back(nullptr);
  if (subject_.before_exec) subject_.before_exec();
  ::execve(program_.c_str(), arguments.data(), environment.data());
  return Fail(Error::FromErrno(fmt::format("cannot execute '{}'", words.front()), errno)
                  .WithHint("The guest runs on; set cpr-exec-command to a program that is there "
                            "and may be executed."));
}

Result<std::optional<Takeover>> TakeoverFromEnvironment() {
  const char* const text = std::getenv(kVariable);  // NOLINT(concurrency-mt-unsafe)
  if (text == nullptr) return std::nullopt;
  const std::string number = text;
  ::unsetenv(kVariable);  // NOLINT(concurrency-mt-unsafe): no child of this process is one, too
  HF_TRY(const int fd, ParseFd(number));
  const UniqueFd memfd(fd);
  HF_TRY(
      const std::vector<std::byte> bytes,
      ReadWholeFile(fmt::format("/proc/self/fd/{}", memfd.get()), kMostCprBytes + CprHead::kSize));
  HF_TRY(const CprHead head, DecodeCprHead(bytes));
  Takeover takeover;
  HF_TRY(takeover.state, DecodeCprState(head, std::span(bytes).subspan(CprHead::kSize)));
  std::set<int> numbers;
  for (const CprFd& each : takeover.state.fds) {
    const int inherited = static_cast<int>(each.number);
    // 0 to 2 are whoever's they are, and this one is closed at the end.
    if (inherited <= STDERR_FILENO || inherited == memfd.get() ||
        !numbers.insert(inherited).second || ::fcntl(inherited, F_SETFD, FD_CLOEXEC) != 0) {
      return Fail(Errc::kMalformed,
                  fmt::format("the descriptor {} of '{}' is not open", each.number, each.name));
    }
    HF_TRY_STATUS(takeover.fds.Add(each.name, UniqueFd(inherited)));
  }
  return takeover;
}

}  // namespace holdfast::migration
