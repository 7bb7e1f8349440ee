// SPDX-License-Identifier: Apache-2.0
#include "apps/sandbox_report.h"

#include <seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "devices/terminal.h"

namespace holdfast::apps {
namespace {

// Names of calls by number. The handler may not allocate, so all are looked up before.
constexpr int kCalls = 512;
constexpr std::size_t kNameSize = 32;
std::array<std::array<char, kNameSize>, kCalls> g_names{};

constexpr int kFromSeccomp = 1;  // SYS_SECCOMP

// Text for one write(): lines of several threads do not mix, and nothing here allocates.
class Line {
 public:
  void Add(std::string_view text) noexcept {
    const std::size_t room = std::min(text.size(), text_.size() - size_);
    std::memcpy(text_.data() + size_, text.data(), room);
    size_ += room;
  }
  void Add(int number) noexcept {
    std::array<char, 12> digits{};
    std::size_t at = digits.size();
    unsigned rest = number < 0 ? 0 : static_cast<unsigned>(number);
    do {
      digits.at(--at) = static_cast<char>('0' + rest % 10);
      rest /= 10;
    } while (rest != 0);
    Add({digits.data() + at, digits.size() - at});
  }
  void Print() const noexcept {
    const ssize_t ignored = ::write(STDERR_FILENO, text_.data(), size_);
    static_cast<void>(ignored);
  }

 private:
  std::array<char, 320> text_{};
  std::size_t size_ = 0;
};

// Async-signal-safe throughout.
void OnForbiddenCall(int signal, siginfo_t* info, void* /*context*/) {
  if (info->si_code != kFromSeccomp) {  // somebody's kill -SYS
    ::signal(signal, SIG_DFL);
    ::raise(signal);
    return;
  }
  const int number = info->si_syscall;
  std::array<char, 16> thread{};
  ::prctl(PR_GET_NAME, thread.data(), 0, 0, 0);
  Line line;
  line.Add("holdfast: -sandbox: the thread '");
  line.Add({thread.data(), ::strnlen(thread.data(), thread.size())});
  line.Add("' made a system call that is not allowed there: ");
  if (number >= 0 && number < kCalls && g_names.at(static_cast<std::size_t>(number))[0] != '\0') {
    line.Add(g_names.at(static_cast<std::size_t>(number)).data());
    line.Add(" (number ");
    line.Add(number);
    line.Add(")");
  } else {
    line.Add("number ");
    line.Add(number);
  }
  line.Add(
      ". This is a defect of holdfast or an attack by the guest; -sandbox off runs without "
      "the check.\n");
  line.Print();
  devices::Terminal::RestoreNow();
  ::_exit(EXIT_FAILURE);
}

}  // namespace

Status InstallSandboxReport() {
  for (int number = 0; number < kCalls; ++number) {
    char* const name = ::seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, number);
    if (name == nullptr) continue;
    ::strncpy(g_names.at(static_cast<std::size_t>(number)).data(), name, kNameSize - 1);
    std::free(name);
  }
  struct sigaction action{};
  action.sa_sigaction = &OnForbiddenCall;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  ::sigemptyset(&action.sa_mask);
  if (::sigaction(SIGSYS, &action, nullptr) != 0) return FailErrno("sigaction for SIGSYS");
  return {};
}

}  // namespace holdfast::apps
