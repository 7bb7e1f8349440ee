// SPDX-License-Identifier: Apache-2.0
#include "devices/terminal.h"

#include <termios.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>

namespace holdfast::devices {
namespace {

// The last three are the main loop's, which takes them through a descriptor; they come here only
// while something at start-up waits with them unblocked (a socket's wait=on).
constexpr std::array<int, 9> kFatalSignals = {SIGSEGV, SIGBUS,  SIGABRT, SIGILL, SIGFPE,
                                              SIGQUIT, SIGTERM, SIGINT,  SIGHUP};
constexpr std::array<int, 2> kJobSignals = {SIGTSTP, SIGCONT};
constexpr std::size_t kSignals = kFatalSignals.size() + kJobSignals.size();

constexpr int SignalAt(std::size_t i) {
  return i < kFatalSignals.size() ? kFatalSignals.at(i) : kJobSignals.at(i - kFatalSignals.size());
}

// Globals because signal handlers have nothing else. Written while g_active is false, when no
// handler looks at them.
std::atomic<bool> g_active = false;
int g_fd = -1;
termios g_saved{};
termios g_raw{};
std::array<struct sigaction, kSignals> g_old_actions{};

static_assert(std::atomic<bool>::is_always_lock_free);

// All calls here are async-signal-safe.
void Apply(const termios& settings) {
  // Changing a terminal from the background would stop us with SIGTTOU, and disturb the foreground.
  if (::tcgetpgrp(g_fd) != ::getpgrp()) return;
  while (::tcsetattr(g_fd, TCSANOW, &settings) != 0 && errno == EINTR) {
  }
}

const struct sigaction* OldAction(int signal) {
  for (std::size_t i = 0; i < kSignals; ++i)
    if (SignalAt(i) == signal) return &g_old_actions.at(i);
  return nullptr;
}

void OnFatalSignal(int signal, siginfo_t* info, void* /*context*/) {
  const int saved_errno = errno;
  Terminal::RestoreNow();
  if (const struct sigaction* old = OldAction(signal)) ::sigaction(signal, old, nullptr);
  // A fault (positive code) happens again when we return, now with its former action and the true
  // context; what was sent has to be sent again, and is delivered when we return.
  if (info->si_code <= 0 || signal == SIGABRT || signal == SIGQUIT) ::raise(signal);
  errno = saved_errno;
}

void OnJobSignal(int signal) {
  const int saved_errno = errno;
  if (g_active.load(std::memory_order_acquire)) {
    if (signal == SIGTSTP) {
      Apply(g_saved);
    } else {
      Apply(g_raw);
    }
  }
  if (signal == SIGTSTP) ::raise(SIGSTOP);  // goes on after SIGCONT
  errno = saved_errno;
}

Status InstallHandlers() {
  for (std::size_t i = 0; i < kSignals; ++i) {
    struct sigaction action{};
    sigemptyset(&action.sa_mask);
    if (i < kFatalSignals.size()) {
      action.sa_sigaction = &OnFatalSignal;
      action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    } else {
      action.sa_handler = &OnJobSignal;
      action.sa_flags = SA_RESTART;
    }
    if (::sigaction(SignalAt(i), &action, &g_old_actions.at(i)) != 0) return FailErrno("sigaction");
    // Who started us may have turned a signal off (nohup, a shell without job control).
    const struct sigaction& old = g_old_actions.at(i);
    if (SignalAt(i) != SIGCONT && (old.sa_flags & SA_SIGINFO) == 0 && old.sa_handler == SIG_IGN)
      ::sigaction(SignalAt(i), &old, nullptr);
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Terminal>> Terminal::MakeRaw(int fd, bool signals) {
  if (::isatty(fd) == 0) return nullptr;
  if (g_active) return Fail(Errc::kInvalidArgument, "the terminal is in raw mode already");
  if (::tcgetattr(fd, &g_saved) != 0) return FailErrno("tcgetattr");
  g_fd = fd;
  g_raw = g_saved;
  g_raw.c_iflag &=
      ~static_cast<tcflag_t>(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
  g_raw.c_oflag |= OPOST;
  g_raw.c_lflag &= ~static_cast<tcflag_t>(ECHO | ECHONL | ICANON | IEXTEN);
  if (!signals) g_raw.c_lflag &= ~static_cast<tcflag_t>(ISIG);
  g_raw.c_cflag &= ~static_cast<tcflag_t>(CSIZE | PARENB);
  g_raw.c_cflag |= CS8;
  g_raw.c_cc[VMIN] = 1;
  g_raw.c_cc[VTIME] = 0;

  static const bool at_exit = [] { return std::atexit([] { RestoreNow(); }) == 0; }();
  if (!at_exit) return Fail(Errc::kExhausted, "atexit failed");
  HF_TRY_STATUS(InstallHandlers());
  g_active.store(true, std::memory_order_release);
  Apply(g_raw);
  return std::unique_ptr<Terminal>(new Terminal);
}

Terminal::~Terminal() {
  RestoreNow();
  for (std::size_t i = 0; i < kSignals; ++i)
    ::sigaction(SignalAt(i), &g_old_actions.at(i), nullptr);
}

void Terminal::RestoreNow() noexcept {
  if (!g_active.exchange(false, std::memory_order_acq_rel)) return;
  Apply(g_saved);
}

}  // namespace holdfast::devices
