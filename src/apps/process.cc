// SPDX-License-Identifier: Apache-2.0
#include "apps/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "base/event_loop.h"
#include "base/log.h"
#include "base/trace.h"

namespace holdfast::apps {
namespace {

// The end of the original process: the child's word, or 1 if it went without one.
[[noreturn]] void WaitForChild(UniqueFd child) {
  unsigned char status = 1;
  ssize_t got = 0;
  do {
    got = ::read(child.get(), &status, 1);
  } while (got < 0 && errno == EINTR);
  ::_exit(got == 1 ? status : 1);
}

Error PidFileError(std::string_view what, int os_errno) {
  return Error::FromErrno(fmt::format("cannot create PID file: {}", what), os_errno);
}

}  // namespace

Result<Daemon> Daemon::Enter() {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return FailErrno("pipe for -daemonize");
  UniqueFd read_end(ends[0]);
  UniqueFd write_end(ends[1]);
  UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return FailErrno("open /dev/null");
  const pid_t child = ::fork();
  if (child < 0) return FailErrno("fork for -daemonize");
  if (child > 0) {
    write_end.reset();
    WaitForChild(std::move(read_end));
  }
  read_end.reset();
  ::setsid();
  // A second fork: a process that leads no session can never get a controlling terminal again.
  const pid_t grandchild = ::fork();
  if (grandchild < 0) return FailErrno("fork for -daemonize");
  if (grandchild > 0) ::_exit(0);
  ::umask(027);
  return Daemon(std::move(write_end), std::move(null));
}

Status Daemon::Ready() {
  if (::chdir("/") != 0) return FailErrno("cannot change to the directory /");
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::dup2(null_.get(), fd) < 0) return FailErrno("cannot let go of the terminal");
  }
  const unsigned char status = 0;
  while (::write(parent_.get(), &status, 1) < 0 && errno == EINTR) {
  }
  parent_.reset();
  null_.reset();
  return {};
}

Result<PidFile> PidFile::Create(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd) return Fail(PidFileError(fmt::format("cannot open '{}'", path), errno));
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  // A lock of the open file: one of the process would go as soon as anything in it closed the file.
  if (::fcntl(fd.get(), F_OFD_SETLK, &lock) != 0) {
    return Fail(PidFileError(fmt::format("cannot lock '{}'", path), errno)
                    .WithHint("Another process that runs has this file as its -pidfile."));
  }
  std::error_code ignored;
  const std::string text = fmt::format("{}\n", ::getpid());
  if (::ftruncate(fd.get(), 0) != 0 ||
      ::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return Fail(PidFileError(fmt::format("cannot write '{}'", path), errno));
  }
  const std::filesystem::path resolved = std::filesystem::weakly_canonical(path, ignored);
  UniqueFd folder(::open(resolved.parent_path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  return PidFile(std::move(fd), std::move(folder), resolved.filename());
}

PidFile::~PidFile() {
  if (fd_ && folder_) ::unlinkat(folder_.get(), name_.c_str(), 0);
}

Result<Confinement> Confinement::Prepare(const Options& options) {
  std::optional<UserIds> user;
  if (!options.run_with.user.empty()) {
    HF_TRY(user, ResolveUser(options.run_with.user));
  }
  return Confinement(options.sandbox, options.run_with, std::move(user));
}

Status Confinement::Enter() const {
  if (!run_with_.chroot.empty()) HF_TRY_STATUS(ChangeRoot(run_with_.chroot));
  if (user_) HF_TRY_STATUS(BecomeUser(*user_));
  // After the change of user, which it shares, and before the sandbox, which forbids it.
  if (run_with_.async_teardown) HF_TRY_STATUS(StartAsyncTeardown());
  return EnterSandbox(sandbox_);
}

Result<std::unique_ptr<Signals>> Signals::Create(EventLoop& loop, Handler handler) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
  if (const int error = ::pthread_sigmask(SIG_BLOCK, &set, nullptr); error != 0) {
    return Fail(Error::FromErrno("cannot block signals", error));
  }
  ::signal(SIGPIPE, SIG_IGN);
  UniqueFd fd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) return FailErrno("signalfd");
  const int raw_fd = fd.get();
  std::unique_ptr<Signals> signals(new Signals(loop, std::move(fd), std::move(handler)));
  HF_TRY_STATUS(
      loop.AddFd(raw_fd, EPOLLIN, [self = signals.get()](std::uint32_t) { self->OnReadable(); }));
  return signals;
}

Signals::~Signals() {
  loop_.RemoveFd(fd_.get());
}

bool Signals::pending() const noexcept {
  pollfd waiting{.fd = fd_.get(), .events = POLLIN, .revents = 0};
  return ::poll(&waiting, 1, 0) == 1;
}

void Signals::OnReadable() {
  signalfd_siginfo info{};
  while (::read(fd_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    handler_(static_cast<int>(info.ssi_signo), static_cast<int>(info.ssi_pid));
  }
}

Status SetUpProcess(const Options& options) {
  log::SetTimestamps(options.timestamps);
  if (options.guest_name_in_messages) log::SetGuestName(options.guest_name);
  for (const std::string& warning : options.warnings) log::Warn(warning);
  if (!options.process_name.empty()) {
    ::prctl(PR_SET_NAME, options.process_name.c_str(), 0, 0, 0);
  }
  if (!options.log_file.empty()) HF_TRY_STATUS(log::SetFile(options.log_file));
  log::EnableItems(options.log_items);
  for (const TraceRequest& request : options.traces) {
    if (!request.file.empty()) HF_TRY_STATUS(log::SetFile(request.file));
    if (!request.events_file.empty()) {
      HF_TRY_STATUS(trace::EnableFromFile(request.events_file));
    }
    if (!request.pattern.empty() && trace::Enable(request.pattern) == 0 &&
        !trace::IsPattern(request.pattern)) {
      log::Warn(fmt::format("trace event '{}' does not exist", request.pattern));
    }
  }
  return {};
}

}  // namespace holdfast::apps
