// SPDX-License-Identifier: Apache-2.0
#include "devices/block/image_program.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <utility>

#include <holdfast/unique_fd.h>

namespace holdfast::devices::block {
namespace {

constexpr int kFirstInChild = 3;
// Where descriptors wait until their numbers are free.
constexpr int kAside = 64;
constexpr std::size_t kMostDescriptors = 8;

// ---- Landlock -----------------------------------------------------------------------------------

// Since Linux 6.2; not in every header.
constexpr std::uint64_t kLandlockTruncate = 1ULL << 14;
constexpr std::uint64_t kWrites = LANDLOCK_ACCESS_FS_WRITE_FILE;
constexpr std::uint64_t kChanges = kWrites | LANDLOCK_ACCESS_FS_REMOVE_DIR |
                                   LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
                                   LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |
                                   LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
                                   LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM;

bool Allow(const UniqueFd& rules, int file, std::uint64_t rights) {
  const landlock_path_beneath_attr beneath{.allowed_access = rights, .parent_fd = file};
  return ::syscall(SYS_landlock_add_rule, rules.get(), LANDLOCK_RULE_PATH_BENEATH, &beneath, 0U) ==
         0;
}

// A set of rules by which only these files can be written; invalid where there is no Landlock, or a
// file that cannot be opened: the program has something to say about that.
UniqueFd MakeRules(const ImageProgram& program) {
  const long version =
      ::syscall(SYS_landlock_create_ruleset, nullptr, 0U, LANDLOCK_CREATE_RULESET_VERSION);
  if (version < 1) return {};
  const std::uint64_t rights = kWrites | (version >= 3 ? kLandlockTruncate : 0);
  const landlock_ruleset_attr handled{.handled_access_fs = kChanges | rights};
  UniqueFd rules(
      static_cast<int>(::syscall(SYS_landlock_create_ruleset, &handled, sizeof handled, 0U)));
  if (!rules) return {};
  const auto allow_path = [&](const std::string& path) {
    const UniqueFd file(::open(path.c_str(), O_PATH | O_CLOEXEC));
    return file && Allow(rules, file.get(), rights);
  };
  if (!allow_path("/dev/null")) return {};
  for (const std::string& path : program.writable) {
    if (!allow_path(path)) return {};
  }
  for (const int fd : program.descriptors) {
    // Sockets and pipes have no place in the file system, and need no rule.
    struct stat status = {};
    if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) continue;
    if (!Allow(rules, fd, rights)) return {};
  }
  return rules;
}

// ---- Between fork and exec: only what is safe there ---------------------------------------------

struct Plan {
  char* const* arguments;
  const int* descriptors;
  std::size_t count;
  const ProgramUser* user;
  int null;
  int rules;
  pid_t parent;
  bool own_group;
};

bool BecomeUser(const ProgramUser& user) {
  return ::syscall(SYS_setgroups, user.groups.size(), user.groups.data()) == 0 &&
         ::syscall(SYS_setresgid, user.gid, user.gid, user.gid) == 0 &&
         ::syscall(SYS_setresuid, user.uid, user.uid, user.uid) == 0;
}

// Root may have to open what belongs to others; nobody else gets anything.
bool DropCapabilities() {
  for (unsigned long which = 0; ::prctl(PR_CAPBSET_READ, which, 0, 0, 0) >= 0; ++which) {
    // EPERM: somebody without CAP_SETPCAP, who has nothing to lose.
    if (which != CAP_DAC_OVERRIDE) ::prctl(PR_CAPBSET_DROP, which, 0, 0, 0);
  }
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {};
  if (::syscall(SYS_capget, &header, sets) != 0) return false;
  const std::uint32_t kept = sets[0].permitted & (1U << CAP_DAC_OVERRIDE);
  for (auto& set : sets) set = {};
  sets[0].permitted = sets[0].effective = kept;
  return ::syscall(SYS_capset, &header, sets) == 0;
}

bool Confine(const Plan& plan) {
  ::unshare(CLONE_NEWNET);  // EPERM: not root
  // This process may have become that user itself since it started the first one.
  const bool other = plan.user != nullptr && plan.user->uid != ::geteuid();
  if (other && !BecomeUser(*plan.user)) return false;
  if (!DropCapabilities() || ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
  return plan.rules < 0 || ::syscall(SYS_landlock_restrict_self, plan.rules, 0U) == 0;
}

[[noreturn]] void Become(const Plan& plan) {
  // What the keyboard sends is for the monitor, which ends the program when the guest has ended.
  if (plan.own_group) ::setpgid(0, 0);
  bool good = Confine(plan);
  // And if the monitor does not come to that, the image is still closed in good order. Not before a
  // change of the user: that takes the wish back.
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  good = good && ::getppid() == plan.parent && ::dup2(plan.null, STDIN_FILENO) >= 0;
  int aside[kMostDescriptors] = {};
  for (std::size_t i = 0; good && i < plan.count; ++i) {
    aside[i] = ::fcntl(plan.descriptors[i], F_DUPFD, kAside);
    good = aside[i] >= 0;
  }
  for (std::size_t i = 0; good && i < plan.count; ++i) {
    good = ::dup2(aside[i], kFirstInChild + static_cast<int>(i)) >= 0;
  }
  if (!good) ::_exit(kCannotExecute - 1);
  ::syscall(SYS_close_range, static_cast<unsigned>(kFirstInChild) + plan.count, ~0U, 0U);
  ::execvp(plan.arguments[0], plan.arguments);
  ::_exit(kCannotExecute);
}

}  // namespace

Result<pid_t> Start(const ImageProgram& program) {
  if (program.descriptors.size() > kMostDescriptors) {
    return Fail(Errc::kInvalidArgument, "a program gets too many descriptors");
  }
  std::vector<std::string> words = program.arguments;
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return FailErrno("open /dev/null");
  const UniqueFd rules = MakeRules(program);
  const Plan plan{.arguments = arguments.data(),
                  .descriptors = program.descriptors.data(),
                  .count = program.descriptors.size(),
                  .user = program.user ? &*program.user : nullptr,
                  .null = null.get(),
                  .rules = rules.get(),
                  .parent = ::getpid(),
                  .own_group = program.outlives_terminal};
  const pid_t pid = ::fork();
  if (pid == 0) Become(plan);
  if (pid < 0) return FailErrno(fmt::format("cannot start {}", program.arguments.front()));
  return pid;
}

Status RunToEnd(const ImageProgram& program) {
  const std::string& name = program.arguments.front();
  HF_TRY(const pid_t pid, Start(program));
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return FailErrno(fmt::format("waiting for {}", name));
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  if (WIFEXITED(status) && WEXITSTATUS(status) == kCannotExecute) {
    return Fail(Errc::kNotFound, fmt::format("{} cannot be started", name));
  }
  return Fail(Errc::kInvalidArgument, fmt::format("{} failed", name), "Its own words stand above.");
}

}  // namespace holdfast::devices::block
