// SPDX-License-Identifier: Apache-2.0
#include "devices/block/storage_daemon.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

namespace holdfast::devices::block {
namespace {

using nlohmann::json;

constexpr std::array<std::string_view, 8> kFormats = {"qcow2", "qcow", "vmdk", "vdi",
                                                      "vhdx",  "vpc",  "qed",  "parallels"};
constexpr std::chrono::milliseconds kRestartAfter{1000};
// To write out what it caches and close the image.
constexpr int kEndMilliseconds = 60'000;
constexpr int kListenerInChild = 3;
constexpr int kCannotExecute = 127;

// A folder that only this user may look into, with a socket, until both ends know each other.
class PrivateSocket {
 public:
  static Result<PrivateSocket> Create() {
    PrivateSocket made;
    const char* const base = std::getenv("XDG_RUNTIME_DIR");
    std::string pattern = fmt::format("{}/holdfast-XXXXXX", base == nullptr ? "/tmp" : base);
    if (::mkdtemp(pattern.data()) == nullptr) {
      pattern = "/tmp/holdfast-XXXXXX";
      if (::mkdtemp(pattern.data()) == nullptr) return FailErrno("cannot make a folder in /tmp");
    }
    made.folder_ = pattern;
    const std::string path = made.folder_ + "/disk";
    if (path.size() >= sizeof made.address_.sun_path) {
      return Fail(Errc::kInvalidArgument, fmt::format("the path '{}' is too long", path));
    }
    made.address_.sun_family = AF_UNIX;
    std::memcpy(made.address_.sun_path, path.data(), path.size());
    made.listener_.reset(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!made.listener_ || ::bind(made.listener_.get(), made.generic(), sizeof address_) != 0 ||
        ::listen(made.listener_.get(), 1) != 0) {
      return FailErrno(fmt::format("cannot make the socket '{}'", path));
    }
    return made;
  }
  PrivateSocket(PrivateSocket&& other) noexcept
      : folder_(std::exchange(other.folder_, {})),
        address_(other.address_),
        listener_(std::move(other.listener_)) {}
  PrivateSocket& operator=(PrivateSocket&&) = delete;
  PrivateSocket(const PrivateSocket&) = delete;
  PrivateSocket& operator=(const PrivateSocket&) = delete;
  ~PrivateSocket() {
    if (folder_.empty()) return;
    ::unlink(address_.sun_path);
    ::rmdir(folder_.c_str());
  }

  const UniqueFd& listener() const noexcept { return listener_; }
  // The connection waits in the socket's queue until somebody accepts it.
  Result<UniqueFd> Connect() const {
    UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd || ::connect(fd.get(), generic(), sizeof address_) != 0) {
      return FailErrno("cannot connect to the storage daemon's socket");
    }
    return fd;
  }

 private:
  PrivateSocket() = default;
  const sockaddr* generic() const noexcept { return reinterpret_cast<const sockaddr*>(&address_); }
  std::string folder_;
  sockaddr_un address_{};
  UniqueFd listener_;
};

// Between fork and exec: only what is safe there.
[[noreturn]] void BecomeDaemon(char* const* arguments, int listener, int null, pid_t parent) {
  // What the keyboard sends is for the monitor, which ends the daemon when the guest has ended.
  ::setpgid(0, 0);
  // And if the monitor does not come to that, the image is still closed in good order.
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  if (::getppid() != parent || ::dup2(null, STDIN_FILENO) < 0 ||
      ::dup2(listener, kListenerInChild) < 0) {
    ::_exit(kCannotExecute);
  }
  if (listener == kListenerInChild) ::fcntl(kListenerInChild, F_SETFD, 0);
  ::syscall(SYS_close_range, kListenerInChild + 1, ~0U, 0U);
  ::execvp(arguments[0], arguments);
  ::_exit(kCannotExecute);
}

}  // namespace

bool IsImageFormat(std::string_view format) noexcept {
  return std::ranges::find(kFormats, format) != kFormats.end();
}

StorageDaemon::~StorageDaemon() {
  End();
}

vhost_user::Endpoint StorageDaemon::endpoint() {
  return vhost_user::Endpoint(
      fmt::format("qemu-storage-daemon {}", config_.node.filename), kRestartAfter,
      [this] { return Start(); }, frozen_);
}

Result<UniqueFd> StorageDaemon::Start() {
  if (*frozen_) {
    return Fail(Errc::kPermission,
                fmt::format("'{}' needs another qemu-storage-daemon, and -sandbox or a new root "
                            "forbids to start programs",
                            config_.node.filename),
                "Write -sandbox on,spawn=allow.");
  }
  End();
  HF_TRY(const PrivateSocket socket, PrivateSocket::Create());
  HF_TRY(UniqueFd connection, socket.Connect());
  HF_TRY_STATUS(Spawn(socket.listener()));
  // Here the listener is closed: once the daemon has gone, nobody can accept the connection, and
  // whoever waits for an answer hears of it.
  return connection;
}

std::vector<std::string> StorageDaemon::Arguments() const {
  const NodeOptions& node = config_.node;
  constexpr std::array<const char*, 3> kAio = {"threads", "native", "io_uring"};
  const bool readonly = node.read_only.value_or(false);
  const json cache = {{"direct", node.direct}, {"no-flush", node.no_flush}};
  const char* const discard = node.discard ? "unmap" : "ignore";
  const json file = {
      {"driver", node.driver == NodeDriver::kHostDevice ? "host_device" : "file"},
      {"node-name", "file"},
      {"filename", node.filename},
      // io_uring is not in every build of QEMU; threads are, and serve cached files well.
      {"aio", node.direct ? kAio[static_cast<std::size_t>(AioWord::kNative)]
                          : kAio[static_cast<std::size_t>(AioWord::kThreads)]},
      {"cache", cache},
      {"read-only", readonly},
      {"discard", discard}};
  json image = {{"driver", config_.format},
                {"node-name", "image"},
                {"file", "file"},
                {"cache", cache},
                {"read-only", readonly},
                {"discard", discard},
                {"force-share", node.force_share}};
  if (node.detect_zeroes != DetectZeroes::kOff) {
    image["detect-zeroes"] = node.detect_zeroes == DetectZeroes::kOn ? "on" : "unmap";
  }
  const json exported = {{"type", "vhost-user-blk"},
                         {"id", "disk"},
                         {"node-name", "image"},
                         {"writable", !readonly},
                         {"num-queues", config_.queues},
                         {"addr", {{"type", "fd"}, {"str", std::to_string(kListenerInChild)}}}};
  return {config_.program, "--blockdev", file.dump(),    "--blockdev",
          image.dump(),    "--export",   exported.dump()};
}

Status StorageDaemon::Spawn(const UniqueFd& listener) {
  std::vector<std::string> words = Arguments();
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return FailErrno("open /dev/null");
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) BecomeDaemon(arguments.data(), listener.get(), null.get(), parent);
  if (pid_ < 0) return FailErrno("cannot start qemu-storage-daemon");
  process_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0U)));
  if (!process_) return FailErrno("pidfd_open");
  return {};
}

void StorageDaemon::End() noexcept {
  if (pid_ < 0) return;
  // By its descriptor: that works in the sandbox, and cannot meet another process.
  const auto signal = [this](int number) {
    ::syscall(SYS_pidfd_send_signal, process_.get(), number, nullptr, 0U);
  };
  signal(SIGTERM);
  pollfd gone{.fd = process_.get(), .events = POLLIN, .revents = 0};
  int ready = 0;
  do {
    ready = ::poll(&gone, 1, kEndMilliseconds);
  } while (ready < 0 && errno == EINTR);
  if (ready != 1) signal(SIGKILL);
  while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  pid_ = -1;
  process_.reset();
}

Error StorageDaemon::Explain(Error error) {
  siginfo_t info{};
  pollfd gone{.fd = process_.get(), .events = POLLIN, .revents = 0};
  // Its connection has closed, so it is about to end.
  constexpr int kMilliseconds = 5000;
  const bool ended =
      pid_ > 0 && ::poll(&gone, 1, kMilliseconds) == 1 &&
      ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT | WNOHANG) == 0;
  if (!ended) return error;
  if (info.si_code == CLD_EXITED && info.si_status == kCannotExecute) {
    return Error(Errc::kNotFound,
                 fmt::format("'{}' needs {}, which cannot be started", config_.node.filename,
                             config_.program),
                 "It reads images that are not raw; on Debian it is in the package "
                 "qemu-system-common.");
  }
  return Error(Errc::kInvalidArgument,
               fmt::format("qemu-storage-daemon could not serve '{}' as {}", config_.node.filename,
                           config_.format),
               "Its own words stand above.");
}

}  // namespace holdfast::devices::block
