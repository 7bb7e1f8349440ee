// SPDX-License-Identifier: Apache-2.0
#include "devices/block/storage_daemon.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "devices/block/image_lock.h"

namespace holdfast::devices::block {
namespace {

using nlohmann::json;

constexpr std::chrono::milliseconds kRestartAfter{1000};
// To write out what it caches and close the image.
constexpr int kEndMilliseconds = 60'000;
constexpr std::chrono::milliseconds kAnswerLimit{kEndMilliseconds};
constexpr const char* kNode = "image";
constexpr int kListenerInChild = 3;
// One of the two, by whether what is written is to last.
constexpr int kLayerInChild = 4;
constexpr int kFlushListenerInChild = 4;

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

json NodeJson(const NodeOptions& node, bool readonly);

void AddOwn(json& described, const NodeOptions& node, bool readonly) {
  switch (node.driver) {
    case NodeDriver::kFile:
    case NodeDriver::kHostDevice:
      described["driver"] = node.driver == NodeDriver::kHostDevice ? "host_device" : "file";
      described["filename"] = node.filename;
      // io_uring is not in every build of QEMU; threads are, and serve cached files well.
      described["aio"] = node.direct ? "native" : "threads";
      if (node.locking != object::OnOffAuto::kAuto) {
        described["locking"] = node.locking == object::OnOffAuto::kOn ? "on" : "off";
      }
      return;
    case NodeDriver::kNullCo:
      described["driver"] = "null-co";
      if (node.size) described["size"] = *node.size;
      described["read-zeroes"] = node.read_zeroes;
      return;
    case NodeDriver::kRaw:
      described["driver"] = "raw";
      if (node.offset != 0) described["offset"] = node.offset;
      if (node.size) described["size"] = *node.size;
      break;
    case NodeDriver::kImage:
      described["driver"] = node.format;
      // What is below a layer is only read.
      if (node.own_backing != nullptr) described["backing"] = NodeJson(*node.own_backing, true);
      if (node.no_backing) described["backing"] = nullptr;
      break;
  }
  if (node.own_child != nullptr) described["file"] = NodeJson(*node.own_child, readonly);
}

// A node as --blockdev has it, with all that is below.
json NodeJson(const NodeOptions& node, bool readonly) {
  json described = {{"cache", {{"direct", node.direct}, {"no-flush", node.no_flush}}},
                    {"read-only", readonly},
                    {"discard", node.discard ? "unmap" : "ignore"},
                    {"force-share", node.force_share}};
  if (node.detect_zeroes != DetectZeroes::kOff) {
    described["detect-zeroes"] = node.detect_zeroes == DetectZeroes::kOn ? "on" : "unmap";
  }
  AddOwn(described, node, readonly);
  return described;
}

// What is written when a node is. An image of VMware's may be several files of one folder.
void AddFiles(const NodeOptions& node, std::vector<std::string>& files) {
  const std::string& name = FileOf(node).filename;
  if (name.empty()) return;
  files.push_back(name);
  if (node.format == "vmdk") {
    const std::string folder = std::filesystem::path(name).parent_path().string();
    files.push_back(folder.empty() ? "." : folder);
  }
}

// The file below a layer, open so that nobody writes it meanwhile. The daemon leaves that to
// whoever it serves.
Result<UniqueFd> HoldStill(const NodeOptions& file) {
  UniqueFd fd(::open(file.filename.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd) return FailErrno(fmt::format("Could not open '{}'", file.filename));
  if (file.locking == object::OnOffAuto::kOff || file.force_share) return fd;
  Status locked =
      LockImage(fd.get(), kPermRead, kPermRead | kPermWriteUnchanged | kPermResize, file.filename);
  const bool no_locks = !locked && locked.error().code() == Errc::kUnsupported;
  if (!locked && !(no_locks && file.locking == object::OnOffAuto::kAuto)) {
    return Fail(std::move(locked).error());
  }
  return fd;
}

// A file that is gone when nobody has it open any more, where QEMU puts its own; a host that boots
// from a small image may lack the folder.
Result<UniqueFd> MakeUnnamedFile(const std::optional<ProgramUser>& user) {
  const char* const folder = std::getenv("TMPDIR");
  std::string path = fmt::format("{}/holdfast-XXXXXX", folder == nullptr ? "/var/tmp" : folder);
  UniqueFd file(::mkostemp(path.data(), O_CLOEXEC));
  if (!file && errno == ENOENT && folder == nullptr) {
    path = "/tmp/holdfast-XXXXXX";
    file.reset(::mkostemp(path.data(), O_CLOEXEC));
  }
  if (!file) {
    return Fail(Error::FromErrno(fmt::format("cannot make the temporary file '{}'", path), errno)
                    .WithHint("TMPDIR names the folder for temporary files."));
  }
  ::unlink(path.c_str());
  if (user && ::fchown(file.get(), user->uid, user->gid) != 0) {
    return FailErrno("cannot give the temporary file to the user of -run-with");
  }
  return file;
}

}  // namespace

Result<std::unique_ptr<StorageDaemon>> StorageDaemon::Create(Config config) {
  std::unique_ptr<StorageDaemon> daemon(new StorageDaemon(std::move(config)));
  if (daemon->config_.snapshot) HF_TRY_STATUS(daemon->MakeLayer());
  return daemon;
}

StorageDaemon::~StorageDaemon() {
  End();
}

std::string StorageDaemon::format() const {
  return config_.node.driver == NodeDriver::kImage ? config_.node.format : "raw";
}

Result<vhost_user::Endpoint> StorageDaemon::endpoint() {
  if (used()) {
    return Fail(
        Errc::kInvalidArgument,
        fmt::format("Drive '{}' is already in use by another block device", config_.node.node_name),
        "Each device needs a drive of its own.");
  }
  const auto user = std::make_shared<int>();
  user_ = user;
  return vhost_user::Endpoint(
      fmt::format("qemu-storage-daemon {}", filename()), kRestartAfter,
      [this, user] { return Connect(); }, frozen_);
}

// The tool reads from the image how large the layer is.
Status StorageDaemon::MakeLayer() {
  HF_TRY(base_, HoldStill(FileOf(config_.node)));
  HF_TRY(layer_, MakeUnnamedFile(config_.user));
  // Absolute: what is before a colon could be taken for a protocol.
  std::error_code error;
  const std::string base = std::filesystem::absolute(filename(), error).string();
  if (error) return Fail(Errc::kSystem, fmt::format("'{}': {}", filename(), error.message()));
  const ImageProgram tool{.arguments = {config_.image_tool, "create", "-q", "-f", "qcow2", "-F",
                                        format(), "-b", base, "/dev/fd/3"},
                          .descriptors = {layer_.get()},
                          .writable = {},
                          .user = config_.user,
                          .outlives_terminal = false};
  Status made = RunToEnd(tool);
  if (made) return {};
  if (made.error().code() == Errc::kNotFound) {
    return Fail(Errc::kNotFound,
                fmt::format("a temporary layer upon '{}' needs {}, which cannot be started",
                            filename(), config_.image_tool),
                "On Debian it is in the package qemu-utils.");
  }
  return Fail(std::move(made).error().Wrap(
      fmt::format("cannot make a temporary layer upon '{}'", filename())));
}

Result<UniqueFd> StorageDaemon::Connect() {
  if (*frozen_) {
    return Fail(Errc::kPermission,
                fmt::format("'{}' needs another qemu-storage-daemon, and programs are started "
                            "neither in the sandbox nor in a new root",
                            filename()),
                "Leave out -sandbox on and -run-with chroot=, or use a raw image.");
  }
  End();
  UniqueFd connection;
  UniqueFd flush_connection;
  {
    HF_TRY(const PrivateSocket socket, PrivateSocket::Create());
    HF_TRY(connection, socket.Connect());
    HF_TRY(const PrivateSocket flush_socket, PrivateSocket::Create());
    HF_TRY(flush_connection, flush_socket.Connect());
    HF_TRY_STATUS(Spawn(socket.listener(), flush_socket.listener()));
    // Here the listeners are closed: once the daemon has gone, nobody can accept the connections,
    // and whoever waits for an answer hears of it.
  }
  // Now, for a daemon keeps nobody waiting who says nothing. One that does not come up says why
  // where the disk connects.
  if (needs_flush())
    flusher_ = NbdFlusher::Connect(std::move(flush_connection), kNode, kAnswerLimit);
  return connection;
}

std::vector<std::string> StorageDaemon::Arguments() const {
  json image = NodeJson(config_.node, config_.snapshot || config_.node.read_only.value_or(false));
  if (config_.snapshot) {
    // Nothing of it is to last, so nobody need wait for a disk.
    const json cache = {{"direct", false}, {"no-flush", true}};
    image = {{"driver", "qcow2"},
             {"file",
              {{"driver", "file"},
               {"filename", fmt::format("/dev/fd/{}", kLayerInChild)},
               {"cache", cache},
               {"discard", "unmap"}}},
             {"backing", image},
             {"cache", cache},
             {"discard", "unmap"}};
  }
  image["node-name"] = kNode;
  const json exported = {{"type", "vhost-user-blk"},
                         {"id", "disk"},
                         {"node-name", kNode},
                         {"writable", !readonly()},
                         {"num-queues", config_.queues},
                         {"addr", {{"type", "fd"}, {"str", std::to_string(kListenerInChild)}}}};
  std::vector<std::string> arguments = {config_.program, "--blockdev", image.dump(), "--export",
                                        exported.dump()};
  if (!needs_flush()) return arguments;
  const json server = {{"addr", {{"type", "fd"}, {"str", std::to_string(kFlushListenerInChild)}}}};
  const json flushed = {{"type", "nbd"}, {"id", "flush"}, {"node-name", kNode}, {"name", kNode}};
  for (const std::string& word :
       {std::string("--nbd-server"), server.dump(), std::string("--export"), flushed.dump()})
    arguments.push_back(word);
  return arguments;
}

Status StorageDaemon::Spawn(const UniqueFd& listener, const UniqueFd& flush_listener) {
  ImageProgram program{.arguments = Arguments(),
                       .descriptors = {listener.get()},
                       .writable = {},
                       .user = config_.user};
  if (config_.snapshot) {
    program.descriptors.push_back(layer_.get());
  } else if (!readonly()) {
    program.descriptors.push_back(flush_listener.get());
    AddFiles(config_.node, program.writable);
  }
  HF_TRY(pid_, block::Start(program));
  process_.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0U)));
  if (!process_) return FailErrno("pidfd_open");
  return {};
}

Status StorageDaemon::Flush() {
  if (!flusher_) return {};
  if (*flusher_) return (*flusher_)->Flush();
  return Fail(flusher_->error());
}

void StorageDaemon::End() noexcept {
  flusher_.reset();
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
                 fmt::format("'{}' needs {}, which cannot be started", filename(), config_.program),
                 "It reads images that are not raw; on Debian it is in the package "
                 "qemu-system-common.");
  }
  return Error(Errc::kInvalidArgument,
               fmt::format("qemu-storage-daemon could not serve '{}' as {}", filename(), format()),
               "Its own words stand above.");
}

}  // namespace holdfast::devices::block
