// SPDX-License-Identifier: Apache-2.0
#include "process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <span>

#include "base/fd_passing.h"

namespace holdfast::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr unsigned kKvmRun = 0xae80;
constexpr std::string_view kKvmError = "KVM internal error";  // QEMU's words

// Lets every system call through but reports ioctl(…, KVM_RUN) to the listener. Cheaper than
// ptrace by far and the same for every monitor.
int InstallFilter() {
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[1])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kKvmRun, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_fprog program{};
  program.len = static_cast<unsigned short>(std::size(code));
  program.filter = code;
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
  return static_cast<int>(
      ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
}

void SendFd(int socket, int fd) {
  const std::byte mark{};
  if (SendWithFds(socket, std::span(&mark, 1), std::span(&fd, 1), 0) < 0) ::_exit(126);
}

UniqueFd ReceiveFd(int socket) {
  std::byte mark{};
  WithFds got = ReceiveWithFds(socket, std::span(&mark, 1), 1, 0);
  return got.fds.empty() ? UniqueFd() : std::move(got.fds.front());
}

[[noreturn]] void RunChild(std::vector<char*>& argv, int output, int socket, Process::Watch watch) {
  const int null = ::open("/dev/null", O_RDONLY);
  ::dup2(null, STDIN_FILENO);
  ::dup2(output, STDOUT_FILENO);
  ::dup2(output, STDERR_FILENO);
  if (watch == Process::Watch::kFirstRun) {
    const int listener = InstallFilter();
    if (listener < 0) ::_exit(125);
    SendFd(socket, listener);
    ::close(listener);
  }
  ::execvp(argv[0], argv.data());
  ::_exit(127);
}

int Remaining(Clock::time_point deadline) {
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return left > 0 ? static_cast<int>(left) : 0;
}

}  // namespace

Result<Process> Process::Start(const std::vector<std::string>& command, Watch watch) {
  int pipes[2];
  int sockets[2];
  if (::pipe2(pipes, O_CLOEXEC) != 0) return FailErrno("making a pipe");
  UniqueFd output(pipes[0]);
  const UniqueFd output_end(pipes[1]);
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0)
    return FailErrno("making a socket pair");
  const UniqueFd ours(sockets[0]);
  UniqueFd theirs(sockets[1]);

  std::vector<std::string> words = command;
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  Process process;
  process.started_ = Clock::now();
  process.pid_ = ::fork();
  if (process.pid_ < 0) return FailErrno("forking");
  if (process.pid_ == 0) RunChild(argv, output_end.get(), theirs.get(), watch);
  theirs.reset();
  process.output_ = std::move(output);
  if (watch == Watch::kFirstRun) {
    process.listener_ = ReceiveFd(ours.get());
    if (!process.listener_) return Fail(Errc::kSystem, "the child could not install its filter");
  }
  return process;
}

Process::Process(Process&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      output_(std::move(other.output_)),
      listener_(std::move(other.listener_)),
      text_(std::move(other.text_)),
      started_(other.started_) {}

Process::~Process() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

Status Process::WaitForText(std::string_view text, std::chrono::seconds limit) {
  const auto deadline = started_ + limit;
  std::array<char, 4096> buffer{};
  while (text_.find(text) == std::string::npos) {
    // QEMU then keeps the guest stopped and waits for somebody to look at it.
    if (text_.find(kKvmError) != std::string::npos)
      return Fail(Errc::kUnsupported, fmt::format("no '{}'; output: {}", text, text_));
    pollfd wait{output_.get(), POLLIN, 0};
    if (::poll(&wait, 1, Remaining(deadline)) <= 0)
      return Fail(Errc::kSystem, fmt::format("no '{}' in time; output: {}", text, text_));
    const ssize_t got = ::read(output_.get(), buffer.data(), buffer.size());
    if (got <= 0) return Fail(Errc::kSystem, fmt::format("it ended without '{}': {}", text, text_));
    text_.append(buffer.data(), static_cast<std::size_t>(got));
  }
  return {};
}

Result<std::chrono::nanoseconds> Process::CpuTimeAtFirstRun(std::chrono::seconds limit) const {
  pollfd wait{listener_.get(), POLLIN, 0};
  if (::poll(&wait, 1, Remaining(started_ + limit)) <= 0 || (wait.revents & POLLIN) == 0)
    return Fail(Errc::kSystem, "the process made no KVM_RUN");
  clockid_t clock{};
  timespec now{};
  if (::clock_getcpuclockid(pid_, &clock) != 0 || ::clock_gettime(clock, &now) != 0)
    return FailErrno("reading the process' CPU time");
  return std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec);
}

Result<Memory> ResidentMemory(pid_t pid, std::uint64_t ram_bytes) {
  std::ifstream smaps(fmt::format("/proc/{}/smaps", pid));
  if (!smaps) return Fail(Errc::kSystem, "cannot read the process' mappings");
  Memory memory;
  bool guest = false;
  std::string line;
  while (std::getline(smaps, line)) {
    unsigned long begin = 0;
    unsigned long end = 0;
    unsigned long kib = 0;
    // NOLINTBEGIN(cert-err34-c): the kernel's own format
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2) {
      guest = end - begin >= ram_bytes / 2;
    } else if (std::sscanf(line.c_str(), "Rss: %lu kB", &kib) == 1) {
      (guest ? memory.guest : memory.other) += kib * 1024;
    }
    // NOLINTEND(cert-err34-c)
  }
  return memory;
}

}  // namespace holdfast::bench
