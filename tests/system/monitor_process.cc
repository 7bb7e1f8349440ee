// SPDX-License-Identifier: Apache-2.0
#include "system/monitor_process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "support/guest_vm.h"
#include "support/old_kernel.h"

namespace holdfast::test {
namespace {

constexpr int kCannotStart = 127;
constexpr std::size_t kShownBytes = 4096;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// {read end, write end}
std::array<UniqueFd, 2> MakePipe() {
  int ends[2] = {-1, -1};
  if (::pipe2(ends, O_CLOEXEC) != 0) ADD_FAILURE() << "pipe2: errno " << errno;
  return {UniqueFd(ends[0]), UniqueFd(ends[1])};
}

std::string_view Tail(std::string_view text) {
  return text.size() > kShownBytes ? text.substr(text.size() - kShownBytes) : text;
}

// Whatever is readable now, appended to `to`. False at the end of the stream.
bool Drain(int fd, std::string& to) {
  std::array<char, 65536> buffer;
  const ssize_t got = ::read(fd, buffer.data(), buffer.size());
  if (got > 0) to.append(buffer.data(), static_cast<std::size_t>(got));
  return got > 0 || (got < 0 && (errno == EINTR || errno == EAGAIN));
}

// A program of the build that this test belongs to.
std::string InThisBuild(const char* name) {
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path().parent_path() / "bin" / name).string();
}

}  // namespace

std::string MonitorPath() {
  const char* const path = std::getenv("HOLDFAST");
  return path != nullptr ? path : InThisBuild("holdfast");
}

std::string CtlPath() {
  return InThisBuild("holdfastctl");
}

MonitorProcess::MonitorProcess(std::vector<std::string> arguments, const Options& options)
    : arguments_(std::move(arguments)), kill_on_destruction_(options.kill_on_destruction) {
  ::signal(SIGPIPE, SIG_IGN);  // the monitor may end while we type
  arguments_.insert(arguments_.begin(), options.program.empty() ? MonitorPath() : options.program);
  auto [err_read, err_write] = MakePipe();
  err_ = std::move(err_read);
  if (options.terminal) {
    int master = -1;
    int slave = -1;
    if (::openpty(&master, &slave, nullptr, nullptr, nullptr) != 0) {
      ADD_FAILURE() << "openpty: errno " << errno;
      return;
    }
    ::fcntl(master, F_SETFD, FD_CLOEXEC);
    ::fcntl(slave, F_SETFD, FD_CLOEXEC);
    in_ = UniqueFd(master);
    out_ = UniqueFd(::fcntl(master, F_DUPFD_CLOEXEC, 0));
    terminal_ = UniqueFd(slave);
    ::tcgetattr(slave, &before_);
    Start(options, slave, slave, err_write.get());
  } else {
    auto [in_read, in_write] = MakePipe();
    auto [out_read, out_write] = MakePipe();
    in_ = std::move(in_write);
    out_ = std::move(out_read);
    Start(options, in_read.get(), out_write.get(), err_write.get());
  }
}

MonitorProcess::~MonitorProcess() {
  if (!kill_on_destruction_ || !running()) return;
  ::kill(pid_, SIGKILL);
  Reap(true);
}

void MonitorProcess::Start(const Options& options, int in, int out, int err) {
  pid_ = ::fork();
  if (pid_ == 0) Become(options, in, out, err);
  if (pid_ < 0) ADD_FAILURE() << "fork: errno " << errno;
}

void MonitorProcess::Become(const Options& options, int in, int out, int err) const {
  // If the test dies, so does this.
  if (options.kill_on_destruction) ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  // A test that runs in a shell's background has the keyboard's signals ignored.
  for (const int signal : {SIGPIPE, SIGINT, SIGQUIT}) ::signal(signal, SIG_DFL);
  bool good = true;
  if (options.terminal) good = ::setsid() >= 0 && ::ioctl(in, TIOCSCTTY, 0) == 0;
  good = good && ::dup2(in, STDIN_FILENO) >= 0 && ::dup2(out, STDOUT_FILENO) >= 0 &&
         ::dup2(err, STDERR_FILENO) >= 0;
  if (options.obey_file_modes && ::geteuid() == 0) {
    // Out of the bounding set, so that the exec does not give them back.
    for (const int capability : {CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH})
      good = good && ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0;
  }
  if (!options.hidden_capabilities.empty())
    good = good && HideKvmCapabilities(options.hidden_capabilities);
  std::vector<char*> argv;
  for (const std::string& argument : arguments_)
    argv.push_back(const_cast<char*>(argument.c_str()));  // execv's signature is not const
  argv.push_back(nullptr);
  if (good) ::execv(argv[0], argv.data());
  const char* message = "test harness: cannot start the monitor\n";
  (void)!::write(STDERR_FILENO, message, std::strlen(message));
  ::_exit(kCannotStart);
}

void MonitorProcess::Reap(bool wait) {
  if (exit_ || pid_ < 0) return;
  int status = 0;
  Exit exit;
  const pid_t got = ::wait4(pid_, &status, wait ? 0 : WNOHANG, &exit.usage);
  if (got != pid_) return;
  if (WIFEXITED(status)) exit.status = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) exit.signal = WTERMSIG(status);
  exit_ = exit;
}

bool MonitorProcess::running() {
  Reap(false);
  return pid_ > 0 && !exit_;
}

bool MonitorProcess::ReadSome(double deadline) {
  while (out_ || err_) {
    std::array<pollfd, 2> fds = {pollfd{out_.get(), POLLIN, 0}, pollfd{err_.get(), POLLIN, 0}};
    const double left = deadline - Now();
    const int count = ::poll(fds.data(), fds.size(), left > 0 ? static_cast<int>(left * 1000) : 0);
    if (count < 0 && errno == EINTR) continue;
    if (count == 0) return false;
    std::size_t before = output_.size() + errors_.size();
    if (fds[0].revents != 0 && !Drain(out_.get(), output_)) out_.reset();
    if (fds[1].revents != 0 && !Drain(err_.get(), errors_)) err_.reset();
    if (output_.size() + errors_.size() > before) return true;
  }
  return false;
}

bool MonitorProcess::Wait(std::string& stream, std::size_t& seen, std::string_view text,
                          double seconds) {
  // A pty's slave is open here too, so the end of the program does not end the stream: look
  // after it in steps.
  constexpr double kStep = 0.1;
  const double deadline = Now() + ScaledSeconds(seconds);
  for (;;) {
    const std::size_t at = stream.find(text, seen);
    if (at != std::string::npos) {
      seen = at + text.size();
      return true;
    }
    const bool was_running = running();
    const double now = Now();
    if (ReadSome(std::min(deadline, now + (was_running ? kStep : 0)))) continue;
    if (!was_running || now >= deadline) return false;
  }
}

bool MonitorProcess::WaitFor(std::string_view text, double seconds) {
  return Wait(output_, output_seen_, text, seconds);
}

bool MonitorProcess::WaitForError(std::string_view text, double seconds) {
  return Wait(errors_, errors_seen_, text, seconds);
}

void MonitorProcess::ReadFor(double seconds) {
  const double deadline = Now() + seconds;
  while (ReadSome(deadline)) {
  }
}

std::optional<MonitorProcess::Exit> MonitorProcess::WaitForExit(double seconds) {
  const double deadline = Now() + ScaledSeconds(seconds);
  while (running() && Now() < deadline) {
    // Read along, so that it never blocks on a full pipe.
    if (!ReadSome(std::min(deadline, Now() + 0.02)) && !out_ && !err_) ::usleep(10'000);
  }
  if (exit_) {
    while (ReadSome(0)) {
    }
  }
  return exit_;
}

bool MonitorProcess::Send(std::string_view text) {
  while (!text.empty()) {
    const ssize_t sent = ::write(in_.get(), text.data(), text.size());
    if (sent < 0 && errno != EINTR) return false;
    if (sent > 0) text.remove_prefix(static_cast<std::size_t>(sent));
  }
  return true;
}

bool MonitorProcess::Signal(int signal) {
  return running() && ::kill(pid_, signal) == 0;
}

bool MonitorProcess::TerminalIsAsBefore() const {
  if (!terminal_) return true;
  termios now{};
  if (::tcgetattr(terminal_.get(), &now) != 0) return false;
  return now.c_iflag == before_.c_iflag && now.c_oflag == before_.c_oflag &&
         now.c_cflag == before_.c_cflag && now.c_lflag == before_.c_lflag &&
         std::memcmp(now.c_cc, before_.c_cc, sizeof now.c_cc) == 0;
}

std::string MonitorProcess::Describe() const {
  std::string text = "command:";
  for (const std::string& argument : arguments_) text += " '" + argument + "'";
  if (exit_) {
    text += exit_->signal != 0 ? "\nended by signal " + std::to_string(exit_->signal)
                               : "\nexit status " + std::to_string(exit_->status);
  } else {
    text += "\nstill running";
  }
  text += "\n---- standard error:\n" + std::string(Tail(errors_));
  text += "\n---- standard output, its end:\n" + std::string(Tail(output_)) + "\n----";
  return text;
}

}  // namespace holdfast::test
