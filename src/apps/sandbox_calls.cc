// SPDX-License-Identifier: Apache-2.0
#include "apps/sandbox_calls.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

namespace holdfast::apps {
namespace {

constexpr std::string_view kCommon[] = {
    // Descriptors. There is no open here, and nothing that makes a descriptor but an eventfd.
    "read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2",
    "pwritev2", "lseek", "close", "poll", "ppoll", "eventfd2", "epoll_ctl",
    // Memory. Punching holes frees guest RAM.
    "brk", "munmap", "mremap", "madvise", "mincore", "fallocate",
    // Locks, time, identity.
    "futex", "futex_waitv", "sched_yield", "clock_gettime", "clock_nanosleep", "nanosleep",
    "gettimeofday", "time", "getcpu", "getpid", "gettid", "getpgrp", "getrandom", "membarrier",
    "sched_getaffinity",
    // Signals, and the ends of thread and process.
    "rt_sigreturn", "rt_sigprocmask", "rt_sigaction", "sigaltstack", "restart_syscall", "rseq",
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    // How UndefinedBehaviorSanitizer finds out whether an object may be read.
    "pipe2",
#endif
    "set_robust_list", "exit", "exit_group"};

// Disks that are open, and an event loop. No socket: what is on the network works elsewhere.
constexpr std::string_view kWorker[] = {"epoll_create1",  "epoll_wait",      "epoll_pwait",
                                        "epoll_pwait2",   "timerfd_settime", "timerfd_gettime",
                                        "io_uring_setup", "io_uring_enter",  "io_uring_register",
                                        "fsync",          "fdatasync",       "sync_file_range",
                                        "fadvise64",      "fstat",           "newfstatat",
                                        "statx",          "ftruncate",       "fcntl"};

constexpr std::string_view kMain[] = {
    // Files: logs, disks and memory of the control protocol, /proc and /sys for statistics.
    "open", "openat", "openat2", "stat", "lstat", "access", "faccessat", "faccessat2", "readlink",
    "readlinkat", "getdents64", "getcwd", "chdir", "umask", "statfs", "fstatfs", "unlink",
    "unlinkat", "rename", "renameat", "renameat2", "flock", "dup2", "dup3", "pipe2", "close_range",
    "copy_file_range", "msync", "memfd_create", "fchmod", "dup", "select", "pselect6",
    // Sockets.
    "socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "sendto", "recvfrom",
    "sendmsg", "recvmsg", "sendmmsg", "recvmmsg", "getsockopt", "setsockopt", "getsockname",
    "getpeername", "shutdown",
    // Timers, signals, children that were started before.
    "timerfd_create", "signalfd4", "rt_sigtimedwait", "rt_sigpending", "wait4", "waitid",
    "pidfd_send_signal", "setitimer",
    // Memory: placement on nodes, pages that stay.
    "mbind", "set_mempolicy", "get_mempolicy", "move_pages", "mlock", "mlock2", "munlock",
    "mlockall", "munlockall",
    // Threads of its own, which inherit the filter and may only be confined further.
    "set_tid_address", "seccomp", "capget",
    // What it may know about itself and the host.
    "getuid", "geteuid", "getgid", "getegid", "getppid", "getpgid", "getsid", "getrusage",
    "getrlimit", "times", "sysinfo", "uname", "sched_getparam", "sched_getscheduler",
    "sched_get_priority_max", "sched_get_priority_min", "getpriority"};

constexpr std::string_view kObsolete[] = {
    "_sysctl",      "afs_syscall", "create_module", "get_kernel_syms", "getpmsg", "putpmsg",
    "query_module", "readahead",   "security",      "sysfs",           "tuxcall", "uselib",
    "ustat",        "vserver",     "epoll_ctl_old", "epoll_wait_old"};

constexpr std::string_view kPrivilege[] = {"setuid",    "setgid",    "setreuid",  "setregid",
                                           "setresuid", "setresgid", "setgroups", "setfsuid",
                                           "setfsgid",  "capset"};

constexpr std::string_view kSpawn[] = {
    "fork",   "vfork",   "clone", "clone3",     "execve",           "execveat",
    "setsid", "setpgid", "kill",  "pidfd_open", "pidfd_send_signal"};

constexpr std::string_view kResource[] = {
    "setpriority",   "sched_setparam", "sched_setscheduler", "sched_setaffinity",
    "sched_setattr", "ioprio_set",     "setrlimit",          "prlimit64"};

// Of linux/vhost.h, which is not C++.
constexpr std::uint64_t kVhostVirtio = 0xaf;

// The type of an ioctl (its second byte) stands for the whole interface.
constexpr IoctlGroup OfType(std::uint64_t type) {
  return {.mask = 0xff00, .value = type << 8};
}
constexpr IoctlGroup Exactly(std::uint64_t request) {
  return {.mask = 0xffffffff, .value = request};
}

// Of linux/userfaultfd.h: memory that is populated on demand, by whoever needs it. Only the main
// thread can open a descriptor for it.
constexpr std::uint64_t kUserfaultfd = 0xaa;

// Terminals: their settings come back when the monitor ends, whichever thread it ends in.
constexpr IoctlGroup kCommonIoctls[] = {
    OfType(KVMIO),    OfType(kVhostVirtio), OfType(kUserfaultfd),
    Exactly(TCGETS),  Exactly(TCSETS),      Exactly(TCSETSW),
    Exactly(TCSETSF), Exactly(TIOCGPGRP),   Exactly(TIOCGWINSZ)};

// Disks: their size and shape, and what takes no data.
constexpr IoctlGroup kWorkerIoctls[] = {
    Exactly(BLKGETSIZE64), Exactly(BLKSSZGET),     Exactly(BLKPBSZGET), Exactly(BLKIOMIN),
    Exactly(BLKIOOPT),     Exactly(BLKDISCARD),    Exactly(BLKZEROOUT), Exactly(BLKFLSBUF),
    Exactly(BLKROGET),     Exactly(FS_IOC_FIEMAP), Exactly(FIONREAD),   Exactly(BLKDISCARDZEROES)};

// Terminals, sockets, taps.
constexpr IoctlGroup kMainIoctls[] = {
    Exactly(FIONBIO),        Exactly(FIOCLEX),       Exactly(TCFLSH),
    Exactly(TIOCGPTN),       Exactly(TIOCSPTLCK),    Exactly(TIOCGPTPEER),
    Exactly(TIOCMGET),       Exactly(TUNSETIFF),     Exactly(TUNGETIFF),
    Exactly(TUNGETFEATURES), Exactly(TUNSETOFFLOAD), Exactly(TUNSETVNETHDRSZ),
    Exactly(TUNSETVNETLE),   Exactly(TUNSETVNETBE),  Exactly(TUNSETQUEUE),
    Exactly(TUNSETSNDBUF)};

}  // namespace

std::span<const std::string_view> CommonCalls() noexcept {
  return kCommon;
}
std::span<const std::string_view> WorkerCalls() noexcept {
  return kWorker;
}
std::span<const std::string_view> MainCalls() noexcept {
  return kMain;
}
std::span<const std::string_view> ObsoleteCalls() noexcept {
  return kObsolete;
}
std::span<const std::string_view> PrivilegeCalls() noexcept {
  return kPrivilege;
}
std::span<const std::string_view> SpawnCalls() noexcept {
  return kSpawn;
}
std::span<const std::string_view> ResourceCalls() noexcept {
  return kResource;
}
std::span<const IoctlGroup> CommonIoctls() noexcept {
  return kCommonIoctls;
}
std::span<const IoctlGroup> WorkerIoctls() noexcept {
  return kWorkerIoctls;
}
std::span<const IoctlGroup> MainIoctls() noexcept {
  return kMainIoctls;
}

}  // namespace holdfast::apps
